//! Configuration of signed calls, and what a template's step may say to make one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Signing secret, allowed hosts and time limits of calls.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// File with the signing secret: `whsec_` and base64, as defined by Standard Webhooks. Read at each call, so that
    /// it can be replaced while the server runs.
    #[schemars(extend("examples" = ["/etc/tenantry/webhook.secret"]))]
    pub secret_file: PathBuf,
    /// Allow calls to private addresses and over plain HTTP. For development.
    #[serde(default)]
    pub allow_private: bool,
    /// Hosts to which calls may use private addresses and plain HTTP, written as in the URL.
    #[serde(default)]
    pub allow_hosts: BTreeSet<String>,
    /// Timeout of a call, in seconds.
    #[serde(default = "timeout")]
    pub timeout_seconds: u64,
    /// Seconds for which the called server may continue to work on a call after the connection has ended.
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

/// Settings of the provider in a template's step, under `with`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// URL to call; must begin with `https`.
    pub url: String,
    /// Values for the called server, which receives them in `spec.settings`.
    #[serde(default)]
    pub parameters: Map<String, Value>,
}
