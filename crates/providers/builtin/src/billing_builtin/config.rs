//! Configuration of the built-in billing ledger: there is none.

use schemars::JsonSchema;
use serde::Deserialize;

/// No settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}
