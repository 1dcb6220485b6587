//! Fences: what a provider serves past Tenantry, to clients with a login of their own, is denied or restored at once; the
//! data stays (design §1). What is only reached through Tenantry needs none: every way in asks the registry.

use async_trait::async_trait;
use tenantry_model::id::ResourceId;
use tenantry_model::suspension::Grade;
use tenantry_model::{Failure, TenantId};

/// What is to be denied of a resource that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
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
    /// What is denied; none: nothing, any more.
    pub grade: Option<Grade>,
    /// The tenant's version that the order follows from.
    pub version: i64,
}

/// Who can deny access to what he serves.
#[async_trait]
pub trait Fence: Send + Sync {
    /// Makes it so before it returns, for sessions that are open too. Safe to call again, and while other verbs run;
    /// whatever is made anew meanwhile is fenced too. An order that is older than one that was carried out does nothing.
    /// A resource that is not there has nothing to deny; one with another owner mark is a fatal failure `name_taken`.
    async fn fence(&self, order: &Order) -> Result<(), Failure>;

    /// What it denies by now of the resource that the order is about, whatever the order says. Changes nothing.
    async fn denies(&self, order: &Order) -> Result<Option<Grade>, Failure>;
}
