//! What the use cases of operations return: operations with their steps, plans of dry runs, results. Neither secrets nor
//! sealed text stand in these types, except in those that reveal a secret once.

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
