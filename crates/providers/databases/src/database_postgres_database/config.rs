//! Configuration of the tenants' own databases, and what a template's step may say to them.

pub use crate::content::Settings;
pub use crate::database_postgres::Config;
