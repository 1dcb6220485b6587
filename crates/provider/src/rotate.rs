//! Rotation of the credentials with which a tenant's applications reach a resource directly. Old and new
//! secret are valid for an overlap. Resources that are only reached through Tenantry have no such secret.

use async_trait::async_trait;
use serde_json::{Map, Value};
use tenantry_model::id::{OperationId, ResourceId};
use tenantry_model::{Failure, TenantId, Write};

use crate::verbs::{Context, Rows, Spec};

/// Effect of a rotation on the current secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Former {
    /// Stays valid until it is retired.
    Stays,
    /// Ends at once, with the sessions that use it, because it is compromised.
    Ends,
}

/// Result of a rotation.
#[derive(Clone, Debug, Default)]
pub struct Rotated {
    /// Changed outputs of the resource. No secrets.
    pub outputs: Map<String, Value>,
    /// Registry rows to write in the transaction that ends the step, among them the sealed secret until it is
    /// claimed.
    pub writes: Vec<Write>,
}

/// A former secret to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retirement {
    /// The tenant that owns the resource.
    pub tenant: TenantId,
    /// The resource.
    pub resource: ResourceId,
    /// Region.
    pub region: String,
    /// External name of the resource.
    pub name: String,
    /// Owner tag on the resource.
    pub claim: String,
    /// The operation that rotated the secret.
    pub rotation: OperationId,
}

/// A provider that can rotate the secrets of its resources.
#[async_trait]
pub trait Rotate: Send + Sync {
    /// Creates a new secret. At most two secrets are valid: the one before the current one ends with its
    /// sessions before this returns, and so does the current one with [`Former::Ends`]. The tenant's fence
    /// stays applied. Idempotent for the same spec after an interruption at any point: one operation rotates
    /// once. An incomplete resource is an error; repair it first.
    async fn rotate(&self, context: &Context, spec: &Spec, former: Former) -> Result<Rotated, Failure>;

    /// Ends the former secret with its sessions, and returns the registry rows that go with it. Idempotent.
    /// Does nothing if the resource is missing or another operation has rotated it since.
    async fn retire(&self, rows: &dyn Rows, retirement: &Retirement) -> Result<Vec<Write>, Failure>;
}
