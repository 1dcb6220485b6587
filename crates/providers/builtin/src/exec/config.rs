//! Configuration of commands, and what a template's step may say to run one.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Environment and working directory of commands.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Names of the environment variables that commands inherit; all others are removed, so that commands do not
    /// see the server's secrets.
    pub env: Vec<String>,
    /// Working directory of commands. Default: the server's.
    #[schemars(extend("examples" = ["/srv/hooks"]))]
    pub directory: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { env: vec!["PATH".to_owned()], directory: None }
    }
}

/// Settings of the provider in a template's step, under `with`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Program and arguments. No shell interprets them.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// Values for the command, which receives them in `spec.settings`.
    #[serde(default)]
    pub parameters: Map<String, Value>,
}
