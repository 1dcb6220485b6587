//! Configuration of the built-in identity provider.

use schemars::JsonSchema;
use serde::Deserialize;

/// How people sign in for the first time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Days for which an invitation works.
    #[schemars(range(min = 1, max = 365))]
    pub invitation_days: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { invitation_days: 7 }
    }
}
