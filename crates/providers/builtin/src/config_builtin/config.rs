//! Configuration of the built-in flags and settings: there is none.

use schemars::JsonSchema;
use serde::Deserialize;

/// No settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}
