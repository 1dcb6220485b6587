//! Rotation: what a tenant's own applications log in with, past Tenantry, is exchanged for something new while both are good
//! (S0.42-44, design §1). What is only reached through Tenantry has no secret that could be rotated.

use async_trait::async_trait;
use serde_json::{Map, Value};
use tenantry_model::id::{OperationId, ResourceId};
use tenantry_model::{Failure, TenantId, Write};

use crate::verbs::{Context, Rows, Spec};

/// What becomes of the secret that applications have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Former {
    /// It is good until it is retired.
    Stays,
    /// It is not good any more, and neither are sessions that were begun with it: somebody has it who should not.
    Ends,
}

/// What a rotation gave.
#[derive(Clone, Debug, Default)]
pub struct Rotated {
    /// Outputs of the resource that are other ones now. No secrets.
    pub outputs: Map<String, Value>,
    /// Rows of the registry, written in the transaction that records the step's end: the secret, sealed, until it is claimed.
    pub writes: Vec<Write>,
}

/// A former secret that is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retirement {
    /// Whose it is.
    pub tenant: TenantId,
    /// The resource.
    pub resource: ResourceId,
    /// Where it is.
    pub region: String,
    /// Its external name.
    pub name: String,
    /// The owner mark on it.
    pub claim: String,
    /// The operation that rotated it.
    pub rotation: OperationId,
}

/// Who can give applications another secret.
#[async_trait]
pub trait Rotate: Send + Sync {
    /// Makes a new secret. At most two are good: the one before the newest ends before this returns, with its sessions, and so
    /// does the newest if it is told to. What the tenant's fence denies stays denied. Safe to call again with the same spec, at any
    /// point inside itself: an operation rotates once. A resource that is not complete is a failure; it is repaired first.
    async fn rotate(&self, context: &Context, spec: &Spec, former: Former) -> Result<Rotated, Failure>;

    /// Ends the former secret, with its sessions, before it returns the rows of the registry that go with it. Safe to call
    /// again. Whatever another operation has rotated since, or what is not there, is left alone.
    async fn retire(&self, rows: &dyn Rows, retirement: &Retirement) -> Result<Vec<Write>, Failure>;
}
