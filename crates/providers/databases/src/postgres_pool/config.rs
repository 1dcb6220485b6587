//! Configuration and step settings of the provider `postgres_pool`.

pub use crate::content::Settings;
pub use crate::postgres::Config;
