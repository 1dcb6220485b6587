//! Configuration of the tenants' own SQLite files.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::content::app;

/// Where the files are and what they are made of.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder that has a folder for each tenant. It is made if it is missing.
    pub folder: PathBuf,
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
    /// No tenant's file grows past this many bytes. Its write-ahead log beside it takes a few megabytes more.
    #[serde(default)]
    #[schemars(extend("examples" = [1_000_000_000]))]
    pub max_bytes: Option<u64>,
    /// Files that are open at a time; the others are opened when they are used.
    #[serde(default = "open_files")]
    pub open_files: u64,
    /// Databases that are kept ready, so that a tenant need not wait for its migrations. None unless told.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub warm: u16,
}

impl Config {
    /// Files in this folder, with everything else as shipped.
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
