//! Configuration of the built-in identity provider, and what a template's step may say to it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How people are let in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Days for which an invitation is good.
    #[schemars(range(min = 1, max = 365))]
    pub invitation_days: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { invitation_days: 7 }
    }
}

/// What a step may say.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How the first administrator gets in (conflict C9).
    #[serde(default)]
    pub first_admin: FirstAdmin,
}

/// The first administrator's way in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FirstAdmin {
    /// A link that is good once.
    #[default]
    Invitation,
    /// A password that must be changed at the first sign-in.
    OneTimePassword,
}
