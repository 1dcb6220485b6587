//! How tenants are kept apart: a property of a template, from which its database provider follows (design §7).

use serde::{Deserialize, Serialize};

/// How tenants are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Rows in shared tables.
    Pool,
    /// A schema of its own.
    Schema,
    /// A database of its own.
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
