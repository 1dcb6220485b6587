//! What use cases answer: the words and fields of the API, without any transport in them. Neither
//! secrets nor sealed text ever stand in these types.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_engine::{Mode, OperationState, StepState};
use tenantry_model::id::{EventId, KeyId, OperationId};
use tenantry_model::suspension::{Grade, Suspensions};
use tenantry_model::{Failure, FailureClass, TenantId, TenantStatus, Timestamp};

use crate::access::Scope;
use crate::operations::archive::{ArchiveView, Loaded};
use crate::operations::clone::Cloned;
use crate::operations::onboard::request::BillingCycle;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TenantView {
    /// Its id.
    pub id: TenantId,
    /// Its DNS label; null once it is erased.
    pub slug: Option<String>,
    /// Its name; null once it is erased.
    pub name: Option<String>,
    /// What it bought.
    pub plan: String,
    /// Where it is in its life.
    pub status: TenantStatus,
    /// Where its resources are.
    pub region: String,
    /// Raised by every change; the ETag.
    pub version: i64,
    /// Registration.
    pub created_at: Timestamp,
    /// First activation.
    pub activated_at: Option<Timestamp>,
    /// Why it is suspended, by reason, or will be once it is active.
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
pub struct StandingView {
    /// The tenant as it is now.
    #[serde(flatten)]
    pub tenant: TenantView,
    /// What clients reach with logins of their own, and whether it denies or lets in accordingly by now. Everything else asks
    /// the registry at each request.
    pub fences: Vec<FenceView>,
}

/// A fence around a resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FenceView {
    /// The step that made the resource.
    pub resource: String,
    /// What it is.
    pub kind: String,
    /// Who serves it.
    pub provider: String,
    /// What it is to deny; null: nothing.
    pub grade: Option<Grade>,
    /// Whether it says that it does. One that does not yet is told again until it does.
    pub acknowledged: bool,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorView {
    /// A stable word; `docs/errors/` explains each.
    pub code: String,
    /// What the failure says about trying again. Records of earlier versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// One sentence.
    pub message: String,
    /// The step where it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Seconds after which the server that failed asks to be called again.
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
    /// Whom it changes.
    pub tenant_id: TenantId,
    /// Which use case: `onboard` …, or the step that it was detached for.
    pub kind: String,
    /// The operation that started it, for a detached step.
    pub parent_id: Option<OperationId>,
    /// Where it is.
    #[schemars(with = "String")]
    pub state: OperationState,
    /// Whether nothing will change any more.
    pub done: bool,
    /// Share of the steps that are over, from 0 to 1.
    pub progress: f64,
    /// Estimated end, from the durations of past operations.
    pub eta: Option<Timestamp>,
    /// Template and version that it began with and keeps.
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
    /// While a tenant is ended: tenants that were cloned from it, or from its clones, and keep copies of its rows. Who erases
    /// a person's data has to erase them too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clones: Vec<TenantId>,
    /// What came of it, once it has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseView>,
    /// What stopped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorView>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepView {
    /// Its name in the template.
    pub key: String,
    /// What it makes.
    pub kind: String,
    /// Who makes it.
    pub provider: String,
    /// Steps that must be over before.
    pub needs: Vec<String>,
    /// Whether the operation waits for it.
    #[schemars(with = "String")]
    pub mode: Mode,
    /// Where it is.
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
    /// The operation that does it, for a detached step.
    pub operation_id: Option<OperationId>,
    /// Whose approval it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
}

/// An approval that a step waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalView {
    /// Scopes of the keys that may give it; `admin` always may.
    pub from: BTreeSet<Scope>,
    /// What the customer asks for beyond the template. Numbers are shown, texts are not.
    #[serde(default)]
    pub asked: BTreeMap<String, Value>,
}

impl Default for ApprovalView {
    /// An operator's, to whatever it is: as plans said it that named nobody.
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
    /// What was made, by step key: kind, provider, external name and public outputs.
    pub resources: BTreeMap<String, ResourceView>,
    /// Archives that were made, by step key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub archives: BTreeMap<String, ArchiveView>,
    /// What was put back from an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<Loaded>,
    /// What was taken over from the tenant that this one is a clone of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned: Option<Cloned>,
    /// Whether secrets wait to be taken, once, at `POST /v1/operations/{id}/credentials`.
    pub credentials_waiting: bool,
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceView {
    /// What it is.
    pub kind: String,
    /// Who serves it.
    pub provider: String,
    /// Its external name.
    pub name: String,
    /// What others may know of it.
    pub outputs: Value,
}

/// What a dry run shows: what would be executed, step by step.
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
    /// Expected length in milliseconds, learned from past runs; null when there were none.
    pub expected_ms: Option<u64>,
    /// What it costs.
    pub price: PriceView,
    /// How many places would be reserved, by kind; empty if the template reserves none.
    pub reserved: BTreeMap<String, u32>,
    /// The steps.
    pub steps: Vec<PlannedStepView>,
}

/// What a plan costs.
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
    /// What it makes.
    pub kind: String,
    /// Who would make it.
    pub provider: String,
    /// Steps before it.
    pub needs: Vec<String>,
    /// Whether the operation waits for it.
    #[schemars(with = "String")]
    pub mode: Mode,
    /// The external name; empty for a built-in action.
    pub name: String,
    /// The provider's settings.
    pub settings: Value,
    /// Whose approval it would wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
}

/// A secret that is handed out once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct CredentialView {
    /// `invitation_token`, `one_time_password` …
    pub name: String,
    /// The secret.
    pub value: String,
}

/// A fact that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    /// Its id.
    pub id: EventId,
    /// Its place in the order of all events; the id of the stream's messages.
    pub seq: i64,
    /// `tenant.provisioned` …
    #[serde(rename = "type")]
    pub kind: String,
    /// Whom it is about.
    pub tenant_id: Option<TenantId>,
    /// Which operation brought it about.
    pub operation_id: Option<OperationId>,
    /// When.
    pub at: Timestamp,
    /// Its particulars; personal ones only as long as the tenant's key lives.
    pub data: Value,
}

/// An API key, without its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KeyView {
    /// Its id.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The one tenant that it sees.
    pub tenant_id: Option<TenantId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A new API key with its secret, shown this once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct NewKeyView {
    /// The key.
    #[serde(flatten)]
    pub key: KeyView,
    /// The bearer token. It is missing where the same idempotency key has made the key before: a secret is shown once.
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
    /// Give this as `cursor` to get them.
    pub next_cursor: Option<String>,
}
