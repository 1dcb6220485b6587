//! Configuration: a tenant's flags and settings.
//!
//! Every provider gives the tenant the first values once and overwrites nothing that the tenant has changed; quotas are
//! set from the plan alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::KindSettings;
use crate::verbs::Kind;

/// What a step says of a tenant's configuration. The planner adds the plan's features to `flags` and the request's
/// settings to `settings`, and fills in `quotas`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigSettings {
    /// Feature flags and their first values.
    pub flags: Map<String, Value>,
    /// Settings and their first values.
    pub settings: Map<String, Value>,
    /// The plan's hard limits.
    pub quotas: Map<String, Value>,
}

impl KindSettings for ConfigSettings {
    const KIND: Kind = Kind::Config;
    const KEYS: &'static [&'static str] = &["flags", "settings", "quotas"];
}

/// What is known of a tenant's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigOutputs {
    /// Its name.
    pub namespace: String,
}
