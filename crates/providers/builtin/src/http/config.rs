//! Configuration of signed calls, and what a template's step may say to make one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// How calls are signed and where they may go.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// File with the signing secret (`whsec_` and base64, as Standard Webhooks has it). Read at each call, so that it can be
    /// replaced.
    #[schemars(extend("examples" = ["/etc/tenantry/webhook.secret"]))]
    pub secret_file: PathBuf,
    /// Lets calls go to private addresses and over plain HTTP. For development.
    #[serde(default)]
    pub allow_private: bool,
    /// Hosts to which the same applies, exactly as they stand in a URL.
    #[serde(default)]
    pub allow_hosts: BTreeSet<String>,
    /// Longest time of one call in seconds.
    #[serde(default = "timeout")]
    pub timeout_seconds: u64,
    /// How long the other side may go on after the line was cut, in seconds.
    #[serde(default = "timeout")]
    pub in_flight_seconds: u64,
}

impl Config {
    /// Calls signed with the secret in this file, to public addresses only.
    pub fn new(secret_file: impl Into<PathBuf>) -> Self {
        Self {
            secret_file: secret_file.into(),
            allow_private: false,
            allow_hosts: BTreeSet::new(),
            timeout_seconds: timeout(),
            in_flight_seconds: timeout(),
        }
    }
}

fn timeout() -> u64 {
    60
}

/// What a step says under `with`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to call: an `https` URL.
    pub url: String,
    /// Anything that the other side wants to know; it finds it in `spec.settings`.
    #[serde(default)]
    pub parameters: Map<String, Value>,
}
