//! Configuration of the tenants' schemas, and what a template's step may say to them.

pub use crate::content::Settings;
pub use crate::database_postgres::Config;
