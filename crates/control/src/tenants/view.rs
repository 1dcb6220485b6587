//! Response types of the use cases of tenants.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::suspension::{SuspensionMode, Suspensions};
use tenantry_model::{TenantId, TenantStatus, Timestamp};

use crate::error::ErrorView;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TenantView {
    /// Tenant id.
    pub id: TenantId,
    /// DNS label of the tenant; null once it is erased.
    pub slug: Option<String>,
    /// Name of the tenant; null once it is erased.
    pub name: Option<String>,
    /// Name of the tenant's plan.
    pub plan: String,
    /// Lifecycle status.
    pub status: TenantStatus,
    /// Region of the tenant's resources.
    pub region: String,
    /// Number that every change increases; also the ETag.
    pub version: i64,
    /// Time of the request that created the tenant.
    pub created_at: Timestamp,
    /// Time of the first activation.
    pub activated_at: Option<Timestamp>,
    /// Suspensions, by reason. During an onboarding, they take effect after the activation.
    pub suspensions: Suspensions,
    /// Start of the present suspension.
    pub suspended_at: Option<Timestamp>,
    /// Time at which the tenant's deletion ended.
    pub deprovisioned_at: Option<Timestamp>,
    /// Labels that clients have set.
    pub labels: BTreeMap<String, String>,
    /// Error of the last operation; null if it succeeded.
    pub last_error: Option<ErrorView>,
    /// For a clone: the tenant whose content was copied into it, with masks applied.
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
    /// Resource kind.
    pub kind: String,
    /// Provider name.
    pub provider: String,
    /// Access that the fence must deny; null: none.
    pub mode: Option<SuspensionMode>,
    /// Whether the provider has confirmed the change; the server repeats it until then.
    pub acknowledged: bool,
}
