//! Databases: where a tenant's rows are.
//!
//! Every provider gives the tenant tables from a set of migrations, with the rows of a seed in them, and keeps tenants
//! apart as it says with [`isolates`](crate::Provider::isolates). Its [`Data`] reaches one tenant's rows and no other's.
//! A database with only some of its tables or seed rows is not complete: `ensure` finishes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KindSettings;
pub use crate::data::{Data, TenantRows};
use crate::verbs::Kind;

/// What a step says of a database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// Set of migrations that the tenant's tables come from.
    #[serde(default = "app")]
    pub migrations: String,
    /// Seed whose rows the tenant begins with; without it, the tables are empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self { migrations: app(), seed: None }
    }
}

impl KindSettings for DatabaseSettings {
    const KIND: Kind = Kind::Database;
    const KEYS: &'static [&'static str] = &["migrations", "seed"];
}

/// Name of the set of migrations in the binary.
pub fn app() -> String {
    "app".to_owned()
}

/// What is known of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatabaseOutputs {
    /// Name of the database, schema or tenant that has the rows.
    pub database: String,
    /// How the tenant is kept apart from others.
    pub isolation: tenantry_model::Isolation,
    /// Set of migrations.
    pub migrations: String,
    /// Seed whose rows the tenant began with.
    pub seed: Option<String>,
}
