//! Scopes of API keys, and the permissions that use cases require. Deny by default: a scope has only the permissions that
//! are listed here.

use serde::{Deserialize, Serialize};

/// Scope of an API key: a set of permissions.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Allows everything, including key management.
    Admin,
    /// Allows everything except key management.
    Operator,
    /// Reads everything except secrets.
    Viewer,
    /// For the product's sign-up page: creates tenants, and reads and claims the secrets of operations that the key
    /// itself began.
    Signup,
    /// Reserved; allows nothing at present.
    Guard,
    /// Reads the one tenant that the key belongs to.
    Tenant,
}

/// Permission that a use case requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Create a tenant.
    CreateTenant,
    /// Read tenants.
    ReadTenants,
    /// Change a tenant.
    WriteTenants,
    /// List the operations of all tenants.
    ListOperations,
    /// Read an operation.
    ReadOperations,
    /// Signal an operation.
    SignalOperations,
    /// Claim the secrets that an operation created.
    ClaimCredentials,
    /// Read plans and templates.
    ReadCatalogue,
    /// Read statistics over all tenants.
    ReadStats,
    /// Read the state of the process and its background tasks.
    ReadSystem,
    /// Probe whether providers can work.
    ProbeProviders,
    /// Run an isolation check.
    CheckIsolation,
    /// Read reports of isolation checks.
    ReadIsolation,
    /// Read events.
    ReadEvents,
    /// Read the audit trail.
    ReadAudit,
    /// Create, list and revoke API keys.
    ManageKeys,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 6] =
        [Self::Admin, Self::Operator, Self::Viewer, Self::Signup, Self::Guard, Self::Tenant];

    /// Whether the scope allows this.
    pub fn allows(self, permission: Permission) -> bool {
        use Permission as P;
        match self {
            Self::Admin => true,
            Self::Operator => !matches!(permission, P::ManageKeys),
            Self::Viewer => matches!(
                permission,
                P::ReadTenants
                    | P::ListOperations
                    | P::ReadOperations
                    | P::ReadCatalogue
                    | P::ReadStats
                    | P::ReadSystem
                    | P::ReadIsolation
                    | P::ReadEvents
                    | P::ReadAudit
            ),
            Self::Signup => matches!(
                permission,
                P::CreateTenant | P::ReadOperations | P::ClaimCredentials | P::ReadCatalogue
            ),
            Self::Guard => false,
            Self::Tenant => matches!(
                permission,
                P::ReadTenants | P::ListOperations | P::ReadOperations | P::ReadCatalogue
            ),
        }
    }
}
