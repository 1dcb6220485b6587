//! Configuration of the built-in identity provider.

use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of invitations.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Days until an invitation expires.
    #[schemars(range(min = 1, max = 365))]
    pub invitation_days: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { invitation_days: 7 }
    }
}
