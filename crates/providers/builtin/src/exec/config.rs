//! Configuration of commands, and what a template's step may say to run one.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What every command gets.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Names of the environment variables that a command sees, if they are set. It sees no others: secrets of this process
    /// stay here.
    pub env: Vec<String>,
    /// Where commands run; this process's own folder without it.
    #[schemars(extend("examples" = ["/srv/hooks"]))]
    pub directory: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { env: vec!["PATH".to_owned()], directory: None }
    }
}

/// What a step says under `with`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The program and its arguments, passed as they are: no shell reads them.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// Anything that the command wants to know; it finds it in `spec.settings`.
    #[serde(default)]
    pub parameters: Map<String, Value>,
}
