//! Configuration resources: a tenant's feature flags, settings and quotas.
//!
//! Every provider sets the initial values once and does not overwrite values that the tenant has changed. Quotas come
//! only from the plan.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::KindSettings;
use crate::verbs::Kind;

/// Settings of a configuration step. The planner adds the plan's features to `flags` and the request's settings to
/// `settings`, and fills in `quotas`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigSettings {
    /// Feature flags with their initial values.
    pub flags: Map<String, Value>,
    /// Settings with their initial values.
    pub settings: Map<String, Value>,
    /// Hard limits of the plan, by quota.
    pub quotas: Map<String, Value>,
}

impl KindSettings for ConfigSettings {
    const KIND: Kind = Kind::Config;
    const KEYS: &'static [&'static str] = &["flags", "settings", "quotas"];
}

/// Outputs of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigOutputs {
    /// Name of the configuration.
    pub namespace: String,
}
