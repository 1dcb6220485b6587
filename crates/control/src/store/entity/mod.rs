//! The registry's tables as they are today, one file each. Columns, types, nullability and keys are said here once:
//! the writer derives its statements from them, and a test compares them with both databases after all migrations.

pub mod tenant;
pub mod operation;
pub mod step;
pub mod signal;
pub mod resource;
pub mod event;
pub mod audit;
pub mod audit_head;
pub mod idempotency_key;
pub mod api_key;
pub mod credential;
pub mod runner;
pub mod member;
pub mod invitation;
pub mod sign_in_code;
pub mod config;
pub mod customer;
pub mod subscription;
pub mod invoice;
