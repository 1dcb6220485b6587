//! Response types of the use cases of operations: operations with their steps, plans of dry runs, results. They contain
//! neither secrets nor encrypted text, except [`CredentialView`], which reveals a secret once.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_engine::{Mode, OperationState, StepState};
use tenantry_model::id::OperationId;
use tenantry_model::{Scope, TenantId, Timestamp};

use super::archive::{ArchiveView, Loaded};
use super::clone::Cloned;
use super::onboard::request::BillingCycle;
use crate::error::ErrorView;

/// A long-running change of one tenant (AIP-151).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationView {
    /// Operation id.
    pub id: OperationId,
    /// Tenant that the operation changes.
    pub tenant_id: TenantId,
    /// Kind, such as `onboard`; for a child operation, the key of its detached step.
    pub kind: String,
    /// Operation that started this one, if this is the child operation of a detached step.
    pub parent_id: Option<OperationId>,
    /// State: `running`, `paused`, `rolling_back`, `needs_attention`, `succeeded`, `rolled_back` or `cancelled`.
    #[schemars(with = "String")]
    pub state: OperationState,
    /// Whether the operation has ended.
    pub done: bool,
    /// Fraction of the steps that are done or skipped, from 0 to 1. It falls during a rollback.
    pub progress: f64,
    /// Estimated end, from the durations of past operations.
    pub eta: Option<Timestamp>,
    /// Name of the template that the plan was made from.
    pub template: String,
    /// Version of the template.
    pub template_version: u32,
    /// Number that every change of the operation increases; also the id of its progress messages.
    pub version: i64,
    /// Time of the request.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
    /// Time of the end.
    pub finished_at: Option<Timestamp>,
    /// Whether the operation has taken longer than expected.
    pub stuck: bool,
    /// Steps, in plan order.
    pub steps: Vec<StepView>,
    /// For an offboarding or erasure: tenants that were cloned from this tenant or from its clones. They keep copies of
    /// its rows; erase them separately if required.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clones: Vec<TenantId>,
    /// Result, once the operation has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseView>,
    /// Error that stopped the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorView>,
}

/// A step of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepView {
    /// Key of the step in the template.
    pub key: String,
    /// Kind of resource or action.
    pub kind: String,
    /// Provider name; `tenantry` for an action.
    pub provider: String,
    /// Keys of the steps that must end before this one starts.
    pub needs: Vec<String>,
    /// `inline` if the operation waits for the step, `detached` if the step is an operation of its own.
    #[schemars(with = "String")]
    pub mode: Mode,
    /// State.
    #[schemars(with = "String")]
    pub state: StepState,
    /// Number of attempts: to run the step or, during a rollback, to compensate it.
    pub attempts: i32,
    /// Time of the first failure, while the step is retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// Provider whose last call failed, while the step waits for its next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Time of the next attempt, or the end of the wait.
    pub due_at: Option<Timestamp>,
    /// Start of the first attempt.
    pub started_at: Option<Timestamp>,
    /// End of the last attempt.
    pub finished_at: Option<Timestamp>,
    /// Failure of the latest attempt that failed.
    pub error: Option<ErrorView>,
    /// Child operation of a detached step.
    pub operation_id: Option<OperationId>,
    /// Approval that the step waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
}

/// An approval that a step waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalView {
    /// Scopes of the API keys that may approve; keys with `admin` always may.
    pub from: BTreeSet<Scope>,
    /// Customisations of the request that need the approval; text values are hidden.
    #[serde(default)]
    pub asked: BTreeMap<String, Value>,
}

impl Default for ApprovalView {
    /// Approval by an operator: plans of earlier versions have no scopes.
    fn default() -> Self {
        Self { from: BTreeSet::from([Scope::Operator]), asked: BTreeMap::new() }
    }
}

/// Result of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResponseView {
    /// Tenant id.
    pub tenant_id: TenantId,
    /// Always `success`.
    pub status: String,
    /// Created resources, by step key.
    pub resources: BTreeMap<String, ResourceView>,
    /// Created archives, by step key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub archives: BTreeMap<String, ArchiveView>,
    /// Amount of content that was loaded from an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<Loaded>,
    /// Amount of content that was copied from the original tenant of a clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned: Option<Cloned>,
    /// Whether `POST /v1/operations/{id}/credentials` has secrets to reveal.
    pub credentials_waiting: bool,
}

/// A created resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceView {
    /// Resource kind.
    pub kind: String,
    /// Provider name.
    pub provider: String,
    /// Name of the resource in the external system.
    pub name: String,
    /// Outputs of the resource, such as its host; never secrets.
    pub outputs: Value,
}

/// Result of a dry run: the plan that would be executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedView {
    /// Name of the tenant's plan.
    pub plan: String,
    /// Name of the template.
    pub template: String,
    /// Version of the template.
    pub template_version: u32,
    /// Slug that the tenant would get.
    pub slug: String,
    /// Region of the tenant's resources.
    pub region: String,
    /// Expected duration in milliseconds, from past operations; null if there are none.
    pub expected_ms: Option<u64>,
    /// Price of the plan.
    pub price: PriceView,
    /// Number of capacity slots that would be reserved, by resource kind; empty if the template reserves none.
    pub reserved: BTreeMap<String, u32>,
    /// Steps, in plan order.
    pub steps: Vec<PlannedStepView>,
}

/// Price of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PriceView {
    /// Price of one billing cycle, in the currency's smallest unit.
    pub amount: u64,
    /// ISO 4217 code.
    pub currency: String,
    /// `monthly` or `yearly`.
    #[schemars(with = "String")]
    pub billing_cycle: BillingCycle,
}

/// A step of a dry run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedStepView {
    /// Key of the step in the template.
    pub key: String,
    /// Kind of resource or action.
    pub kind: String,
    /// Provider name; `tenantry` for an action.
    pub provider: String,
    /// Keys of the steps that must end before this one starts.
    pub needs: Vec<String>,
    /// `inline` if the operation would wait for the step, `detached` if the step would be an operation of its own.
    #[schemars(with = "String")]
    pub mode: Mode,
    /// Name that the resource would get in the external system; empty for an action.
    pub name: String,
    /// Settings for the provider or the action.
    pub settings: Value,
    /// Approval that the step would wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
}

/// A secret that is revealed only once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct CredentialView {
    /// Name of the credential, such as `invitation_token` or `one_time_password`.
    pub name: String,
    /// The secret in clear.
    pub value: String,
}
