//! Fences: a provider whose resources clients reach directly, with their own login, blocks or restores that
//! access while the data stays. Resources that are only reached through Tenantry need no fence, because every
//! request checks the registry.

use async_trait::async_trait;
use tenantry_model::id::ResourceId;
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, TenantId};

/// The desired fence of an existing resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
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
    /// The access to block; none removes the fence.
    pub mode: Option<SuspensionMode>,
    /// Version of the tenant from which the fence follows.
    pub version: i64,
}

/// A provider that can block direct access to its resources.
#[async_trait]
pub trait Fence: Send + Sync {
    /// Applies the desired fence before it returns, to open sessions too. Safe to repeat, and to call while
    /// other verbs run: resources that are recreated meanwhile are fenced too. An order older than the last
    /// applied one does nothing. A missing resource is no error; one with another owner tag is a fatal
    /// failure `name_taken`.
    async fn fence(&self, order: &Order) -> Result<(), Failure>;

    /// Reads the applied fence of the order's resource. Ignores the order's mode and changes nothing.
    async fn denies(&self, order: &Order) -> Result<Option<SuspensionMode>, Failure>;
}
