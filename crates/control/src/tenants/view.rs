//! What the use cases of tenants return.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::suspension::{SuspensionMode, Suspensions};
use tenantry_model::{TenantId, TenantStatus, Timestamp};

use crate::error::ErrorView;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TenantView {
    /// Its id.
    pub id: TenantId,
    /// Its DNS label; null once it is erased.
    pub slug: Option<String>,
    /// Its name; null once it is erased.
    pub name: Option<String>,
    /// Plan.
    pub plan: String,
    /// Lifecycle status.
    pub status: TenantStatus,
    /// Region of its resources.
    pub region: String,
    /// Raised by every change; the ETag.
    pub version: i64,
    /// Registration.
    pub created_at: Timestamp,
    /// First activation.
    pub activated_at: Option<Timestamp>,
    /// Reasons and modes of its suspension; during an onboarding, of the suspension that follows it.
    pub suspensions: Suspensions,
    /// Start of the present suspension.
    pub suspended_at: Option<Timestamp>,
    /// End.
    pub deprovisioned_at: Option<Timestamp>,
    /// The client's own labels.
    pub labels: BTreeMap<String, String>,
    /// Why the last operation failed, if it did.
    pub last_error: Option<ErrorView>,
    /// The tenant that it is a clone of: a sandbox, with that one's content under masks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned_from: Option<TenantId>,
}

/// A tenant whose access was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SuspensionView {
    /// The tenant as it is now.
    #[serde(flatten)]
    pub tenant: TenantView,
    /// Fences of resources with direct access, and whether each has acknowledged the change. All other access is
    /// checked at each request.
    pub fences: Vec<FenceView>,
}

/// A fence around a resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FenceView {
    /// Key of the step that created the resource.
    pub resource: String,
    /// Kind.
    pub kind: String,
    /// Provider.
    pub provider: String,
    /// Access that it must deny; null: none.
    pub mode: Option<SuspensionMode>,
    /// Whether the provider has confirmed it; the server repeats the change until then.
    pub acknowledged: bool,
}
