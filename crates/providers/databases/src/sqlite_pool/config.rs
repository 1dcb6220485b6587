//! Configuration of the SQLite pool.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::content::app;

/// Location and content of the shared file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The database file. Its folder is created if it is missing.
    pub file: PathBuf,
    /// Name of the migration set: a folder in `migrations`.
    #[serde(default = "app")]
    pub set: String,
    /// Folder with migration sets. Default: the sets that ship with the program.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/migrations"]))]
    pub migrations: Option<PathBuf>,
    /// Folder with seeds. Default: the seeds that ship with the program.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/seeds"]))]
    pub seeds: Option<PathBuf>,
    /// Maximum size of the file in bytes. Its write-ahead log takes a few megabytes more.
    #[serde(default)]
    #[schemars(extend("examples" = [1_000_000_000]))]
    pub max_bytes: Option<u64>,
}

impl Config {
    /// The pool in this file; all other settings have their defaults.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), set: app(), migrations: None, seeds: None, max_bytes: None }
    }
}
