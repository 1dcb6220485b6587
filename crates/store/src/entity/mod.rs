//! The registry's current tables, one file each: columns, types, nullability and primary keys. Reads and the
//! writer derive their statements from these declarations; a test compares them with both databases after all
//! migrations.

pub mod api_key;
pub mod archive;
pub mod audit;
pub mod audit_head;
pub mod certificate;
pub mod config;
pub mod credential;
pub mod customer;
pub mod event;
pub mod idempotency_key;
pub mod invitation;
pub mod invoice;
pub mod isolation_report;
pub mod leader;
pub mod member;
pub mod operation;
pub mod resource;
pub mod rotation;
pub mod session;
pub mod sign_in_code;
pub mod signal;
pub mod slot;
pub mod step;
pub mod subscription;
pub mod tenant;
