//! Isolation between tenants: a property of a template, which determines its database provider.

use serde::{Deserialize, Serialize};

/// Isolation of tenants' data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Rows in shared tables.
    Pool,
    /// One schema per tenant.
    Schema,
    /// One database per tenant.
    Database,
}

impl Isolation {
    /// The word used in templates and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Schema => "schema",
            Self::Database => "database",
        }
    }
}
