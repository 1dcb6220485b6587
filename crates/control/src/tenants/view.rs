//! What use cases answer: the words and fields of the API, without any transport in them. Neither
//! secrets nor sealed text ever stand in these types.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_engine::{Mode, OperationState, StepState};
use tenantry_model::id::{EventId, KeyId, OperationId};
use tenantry_model::suspension::{SuspensionMode, Suspensions};
use tenantry_model::{Failure, FailureClass, TenantId, TenantStatus, Timestamp};

use crate::operations::archive::{ArchiveView, Loaded};
use crate::operations::clone::Cloned;
use crate::operations::onboard::request::BillingCycle;
use tenantry_model::Scope;

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

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorView {
    /// Stable error code; `docs/errors/` explains each.
    pub code: String,
    /// Whether a retry can succeed. Missing in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// Message for people.
    pub message: String,
    /// The step where it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Seconds to wait before a retry, if the failed server asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl ErrorView {
    /// The public part of a failure.
    pub fn of(failure: &Failure, step: Option<&str>) -> Self {
        Self {
            code: failure.code.clone(),
            class: Some(failure.class),
            message: failure.message.clone(),
            step: step.map(str::to_owned),
            retry_after: failure.retry_after_ms.map(|ms| ms.div_ceil(1_000)),
        }
    }
}

/// A long-running change of one tenant (AIP-151).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationView {
    /// Its id.
    pub id: OperationId,
    /// Tenant that it changes.
    pub tenant_id: TenantId,
    /// Kind, such as `onboard`; for a child operation, the key of its detached step.
    pub kind: String,
    /// The operation that started it, for a detached step.
    pub parent_id: Option<OperationId>,
    /// State.
    #[schemars(with = "String")]
    pub state: OperationState,
    /// Whether it has ended.
    pub done: bool,
    /// Share of the steps that are over, from 0 to 1.
    pub progress: f64,
    /// Estimated end, from the durations of past operations.
    pub eta: Option<Timestamp>,
    /// Template from which it was planned.
    pub template: String,
    /// The version.
    pub template_version: u32,
    /// Raised by every change; the id of its progress messages.
    pub version: i64,
    /// Start.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
    /// End.
    pub finished_at: Option<Timestamp>,
    /// True once it has taken longer than expected.
    pub stuck: bool,
    /// Its steps, in plan order.
    pub steps: Vec<StepView>,
    /// For an offboarding or erasure: tenants that were cloned from this one or its clones. They keep copies of its rows;
    /// erase them separately if required.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clones: Vec<TenantId>,
    /// Result, once it has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseView>,
    /// Error that stopped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorView>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepView {
    /// Its name in the template.
    pub key: String,
    /// Kind of resource or action.
    pub kind: String,
    /// Provider.
    pub provider: String,
    /// Keys of the steps that must end before it starts.
    pub needs: Vec<String>,
    /// Whether the operation waits for it.
    #[schemars(with = "String")]
    pub mode: Mode,
    /// State.
    #[schemars(with = "String")]
    pub state: StepState,
    /// Attempts in the present direction.
    pub attempts: i32,
    /// Next attempt, or the end of its wait.
    pub due_at: Option<Timestamp>,
    /// First start.
    pub started_at: Option<Timestamp>,
    /// End.
    pub finished_at: Option<Timestamp>,
    /// Its latest failure.
    pub error: Option<ErrorView>,
    /// Child operation of a detached step.
    pub operation_id: Option<OperationId>,
    /// Approval that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
}

/// An approval that a step waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalView {
    /// Scopes of the keys that may give it; `admin` always may.
    pub from: BTreeSet<Scope>,
    /// Customisations of the request that need the approval; text values are hidden.
    #[serde(default)]
    pub asked: BTreeMap<String, Value>,
}

impl Default for ApprovalView {
    /// The approval of an operator, as in plans of earlier versions, which name no scopes.
    fn default() -> Self {
        Self { from: BTreeSet::from([Scope::Operator]), asked: BTreeMap::new() }
    }
}

/// Result of an onboarding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResponseView {
    /// The tenant.
    pub tenant_id: TenantId,
    /// `success`.
    pub status: String,
    /// Created resources by step key: kind, provider, external name and public outputs.
    pub resources: BTreeMap<String, ResourceView>,
    /// Created archives, by step key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub archives: BTreeMap<String, ArchiveView>,
    /// Content that was loaded from an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<Loaded>,
    /// Content that was copied from the original of a clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned: Option<Cloned>,
    /// Whether `POST /v1/operations/{id}/credentials` has secrets to reveal.
    pub credentials_waiting: bool,
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceView {
    /// Kind.
    pub kind: String,
    /// Provider.
    pub provider: String,
    /// Its external name.
    pub name: String,
    /// Public outputs.
    pub outputs: Value,
}

/// Result of a dry run: the plan that would be executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedView {
    /// The plan.
    pub plan: String,
    /// The template.
    pub template: String,
    /// Its version.
    pub template_version: u32,
    /// The slug that the tenant would get.
    pub slug: String,
    /// The region.
    pub region: String,
    /// Expected duration in milliseconds, from past operations; null if there are none.
    pub expected_ms: Option<u64>,
    /// Price.
    pub price: PriceView,
    /// Capacity slots that would be reserved, by kind; empty if the template reserves none.
    pub reserved: BTreeMap<String, u32>,
    /// The steps.
    pub steps: Vec<PlannedStepView>,
}

/// Price of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PriceView {
    /// For one period, in the currency's smallest unit.
    pub amount: u64,
    /// ISO 4217.
    pub currency: String,
    /// `monthly` or `yearly`.
    #[schemars(with = "String")]
    pub billing_cycle: BillingCycle,
}

/// One step of a dry run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedStepView {
    /// Its name.
    pub key: String,
    /// Kind of resource or action.
    pub kind: String,
    /// Provider.
    pub provider: String,
    /// Keys of the steps that must end before it starts.
    pub needs: Vec<String>,
    /// Whether the operation waits for it.
    #[schemars(with = "String")]
    pub mode: Mode,
    /// The external name; empty for a built-in action.
    pub name: String,
    /// The provider's settings.
    pub settings: Value,
    /// Approval that it would wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
}

/// A secret, revealed once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct CredentialView {
    /// `invitation_token`, `one_time_password` …
    pub name: String,
    /// The secret.
    pub value: String,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    /// Its id.
    pub id: EventId,
    /// Its place in the order of all events; the id of the stream's messages.
    pub seq: i64,
    /// `tenant.provisioned` …
    #[serde(rename = "type")]
    pub kind: String,
    /// Tenant.
    pub tenant_id: Option<TenantId>,
    /// Operation that caused it.
    pub operation_id: Option<OperationId>,
    /// Time.
    pub at: Timestamp,
    /// Data; personal data only until the tenant's key is destroyed.
    pub data: Value,
}

/// An API key, without its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KeyView {
    /// Its id.
    pub id: KeyId,
    /// Display name.
    pub name: String,
    /// Scopes.
    pub scopes: Vec<Scope>,
    /// The only tenant that it can read; null without the scope `tenant`.
    pub tenant_id: Option<TenantId>,
    /// Creation.
    pub created_at: Timestamp,
    /// Expiry.
    pub expires_at: Option<Timestamp>,
    /// Revocation.
    pub revoked_at: Option<Timestamp>,
}

/// A new API key with its secret, shown this once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct NewKeyView {
    /// The key.
    #[serde(flatten)]
    pub key: KeyView,
    /// The bearer token. Missing if the request repeats an earlier one: a secret is shown once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// The entries.
    pub data: Vec<T>,
    /// Whether there are more.
    pub has_more: bool,
    /// `cursor` of the next page.
    pub next_cursor: Option<String>,
}
