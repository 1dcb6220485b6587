//! Database resources, for a tenant's rows.
//!
//! Every provider creates tables from a set of migrations, with the rows of a seed in them, and isolates tenants from
//! each other as it declares with [`isolates`](crate::Provider::isolates). Its [`Data`] gives access to one tenant's
//! rows only. A database with only some of its tables or seed rows is incomplete, and `ensure` completes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KindSettings;
pub use crate::data::{Data, TenantRows};
use crate::verbs::Kind;

/// Settings of a database step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// Name of the set of migrations that creates the tenant's tables.
    #[serde(default = "app")]
    pub migrations: String,
    /// Name of the seed whose rows are inserted first; without it, the tables are empty.
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

/// Outputs of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatabaseOutputs {
    /// Name of the database or schema that has the rows or, in a shared database, the tenant's id.
    pub database: String,
    /// Isolation of the tenant from the others.
    pub isolation: tenantry_model::Isolation,
    /// Name of the set of migrations.
    pub migrations: String,
    /// Name of the seed; none if the tables were created empty.
    pub seed: Option<String>,
}
