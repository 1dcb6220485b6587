//! Configuration of the handed-off files, and what a template's step may say to them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Where the files are.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder that the other system watches. It is made if it is missing.
    pub folder: PathBuf,
}

/// What a step may say.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What the other system should know besides.
    #[serde(default)]
    pub data: Map<String, Value>,
}
