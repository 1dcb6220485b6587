//! What a template's step may say to the built-in flags and settings. There is nothing to configure.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Nothing.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// What a step may say. The planner lays the plan's features over `flags` and fills in `quotas` (S1.23).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Feature flags and their first values.
    #[serde(default)]
    pub flags: Map<String, Value>,
    /// Settings and their first values.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// The plan's hard limits.
    #[serde(default)]
    pub quotas: Map<String, Value>,
}
