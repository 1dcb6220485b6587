//! Configuration of the tenants' own SQLite files.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::content::app;

/// Location and content of the tenants' files.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder that contains one folder per tenant. Created if it is missing.
    pub folder: PathBuf,
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
    /// Maximum size of a tenant's file in bytes. Its write-ahead log takes a few megabytes more.
    #[serde(default)]
    #[schemars(extend("examples" = [1_000_000_000]))]
    pub max_bytes: Option<u64>,
    /// Maximum number of files that are open at a time.
    #[serde(default = "open_files")]
    pub open_files: u64,
    /// Size of the warm pool, databases that are created in advance. 0: no warm pool.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub warm: u16,
}

impl Config {
    /// Files in this folder; all other settings have their defaults.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            set: app(),
            migrations: None,
            seeds: None,
            max_bytes: None,
            open_files: open_files(),
            warm: 0,
        }
    }
}

fn open_files() -> u64 {
    64
}
