//! Templates: the business process of a plan as versioned data. This file is the format; `load.rs` reads and checks
//! it, `library.rs` keeps the versions side by side.

pub(crate) mod built_in;
mod check;
pub(crate) mod customize;
mod diff;
mod duration;
pub(crate) mod expression;
mod inherit;
mod library;
mod load;
pub(crate) mod names;
pub mod shape;

pub(crate) use check::mask_faults;
pub use customize::{Customizations, Rule};
pub use diff::{ChangeKind, TemplateChange, TemplateDiff, diff};
pub use duration::Span;
pub use inherit::Inherit;
pub use library::Library;
pub use load::{Loaded, load, schema};

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tenantry_engine::{Mode, OnFailure};
use tenantry_model::Isolation;
use tenantry_model::quota::Quotas;
use tenantry_provider::Kind;
use tenantry_provider::masks::MaskRule;

use tenantry_model::Scope;

/// A template as it stands in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Name of the template; plans refer to it.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_]{0,62}$"))]
    pub template: String,
    /// Version number, to be increased with every change. An operation keeps the version that it started with.
    #[schemars(range(min = 1))]
    pub version: u32,
    /// Isolation of tenants from each other. A database step without `provider` gets a provider with this isolation.
    pub isolation: Isolation,
    /// Quotas of the tenants; those of the plan override them.
    #[serde(default)]
    pub quotas: Quotas,
    /// External names by kind, with `{id}`, `{slug}`, `{region}` and `{step}` to be filled in.
    #[serde(default)]
    pub names: BTreeMap<Kind, String>,
    /// Expected duration; an onboarding that takes longer is marked `stuck`.
    #[serde(default = "ten_minutes")]
    pub expected: Span,
    /// Action when a step has failed permanently, unless the step sets its own.
    #[serde(default = "rollback")]
    pub on_failure: OnFailure,
    /// Customisations that a request may make.
    #[serde(default)]
    pub customizations: Customizations,
    /// Settings that new tenants inherit from a main tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherit: Option<Inherit>,
    /// Masks of all clones of its tenants; a request can only add masks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 256))]
    pub masks: Vec<MaskRule>,
    /// Steps by key.
    #[schemars(with = "BTreeMap<String, StepSpec>")]
    pub steps: IndexMap<String, StepSpec>,
}

/// Settings of a template's smoke test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeSettings {
    /// Table in which the smoke test writes, reads and deletes a row.
    #[serde(default)]
    pub table: Option<String>,
    /// Values of the row, by column.
    #[serde(default)]
    pub row: Map<String, Value>,
    /// Key of an object that is stored, read and deleted, through signed addresses.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1024))]
    pub object: Option<String>,
}

impl Template {
    /// Whether capacity slots are reserved before resources are created.
    pub fn reserves(&self) -> bool {
        self.steps.contains_key(built_in::RESERVE)
    }

    /// The template for callers that may not see secrets: the values under `with`, which only providers read, are hidden.
    pub fn without_secrets(mut self) -> Self {
        self.steps.values_mut().for_each(|step| hide(&mut step.with));
        self
    }

    /// Number of resources that the steps create, by kind.
    pub fn needed(&self) -> BTreeMap<String, u32> {
        let mut needed = BTreeMap::new();
        for kind in self.steps.values().filter_map(|step| step.kind) {
            *needed.entry(kind.as_str().to_owned()).or_default() += 1;
        }
        needed
    }
}

/// Replaces the values of a provider's own settings, for callers that may not see secrets.
pub(crate) fn hide(settings: &mut Map<String, Value>) {
    settings.values_mut().for_each(|value| *value = Value::from("***"));
}

/// One step. Without `kind` and `wait`, the key names a built-in action: `smoke_test` or `activate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StepSpec {
    /// Kind of resource to create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Provider; by default the first one of this kind with the template's isolation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Keys of the steps that must end before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// `approval`, or a duration such as `30d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    /// Scopes of the API keys that may approve; by default `operator`. `admin` always may.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub from: BTreeSet<Scope>,
    /// Timeout of an attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Time for which a dependency that does not work is waited for; by default the server's `executor.retry_for`. `0s`:
    /// nothing is retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_for: Option<Span>,
    /// Retries after a wrong answer of a dependency that works, such as a check that fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Upper bound of the first delay; doubles with each retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Span>,
    /// Action when the step has failed for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// `detached`: runs as a child operation, for which the activation does not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Settings of the provider.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub with: Map<String, Value>,
    /// Settings of the kind, or of the built-in action: all keys that are none of the above.
    #[serde(flatten)]
    #[schemars(skip)]
    pub settings: Map<String, Value>,
}

fn ten_minutes() -> Span {
    Span::from_secs(600)
}

fn rollback() -> OnFailure {
    OnFailure::Rollback
}
