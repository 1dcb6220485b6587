//! Providers: who makes a tenant's resources. A few idempotent verbs, one folder per provider with the same file
//! names, one registration list. A provider neither retries nor schedules: the engine does.

pub mod answer;
pub mod billing_builtin;
pub mod bucket_folder;
pub mod certificate_local_ca;
pub mod config_builtin;
mod content;
mod csv;
pub mod custom_handoff;
pub mod data;
pub mod database_postgres;
pub mod database_postgres_database;
pub mod database_postgres_pool;
pub mod database_postgres_schema;
mod database_sqlite;
pub mod database_sqlite_file;
pub mod database_sqlite_pool;
pub mod derived;
pub mod dns_builtin;
pub mod exec;
pub mod fence;
pub mod files;
pub mod hosts;
pub mod http;
pub mod identity_builtin;
pub mod isolation;
pub mod lanes;
pub mod mail_outbox;
pub mod masks;
pub mod migrations;
pub mod namespace_manifests;
pub mod objects;
pub mod open_files;
mod passwords;
pub mod pipe;
pub mod place;
pub mod portable;
pub mod redact;
mod refill;
pub mod registry;
pub mod rotate;
pub mod sealed_file;
pub mod seeds;
pub mod settings;
mod shape;
pub mod ssrf;
mod tables;
pub mod verbs;

pub use data::{Canary, Data, Page, TenantRows};
pub use fence::{Fence, Order};
pub use isolation::{Cell, Checked, IsolationCheck, Outcome, Who};
pub use objects::{Objects, TenantObjects};
pub use portable::Portable;
pub use registry::Registry;
pub use rotate::{Former, Retirement, Rotate, Rotated};
pub use verbs::{
    Context, Ensured, Fault, Key, Kind, Notes, Observed, Person, Provider, Removed, Rows, Sealer, Spec,
    Tenant,
};
