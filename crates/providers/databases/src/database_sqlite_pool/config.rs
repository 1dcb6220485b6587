//! Configuration of the SQLite pool.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::content::app;

/// Where the pool is and what it is made of.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The database file. Its folder is made if it is missing.
    pub file: PathBuf,
    /// The set of migrations: a folder inside `migrations`.
    #[serde(default = "app")]
    pub set: String,
    /// Folder with sets of migrations; without it, the sets that came with the program.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/migrations"]))]
    pub migrations: Option<PathBuf>,
    /// Folder with seeds; without it, the seeds that came with the program.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/seeds"]))]
    pub seeds: Option<PathBuf>,
    /// The file never grows past this many bytes. Its write-ahead log beside it takes a few megabytes more.
    #[serde(default)]
    #[schemars(extend("examples" = [1_000_000_000]))]
    pub max_bytes: Option<u64>,
}

impl Config {
    /// A pool in this file, with everything else as shipped.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), set: app(), migrations: None, seeds: None, max_bytes: None }
    }
}
