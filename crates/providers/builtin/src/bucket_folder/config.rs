//! Configuration of the buckets in folders.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// Where the buckets are.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder that has a folder for each bucket. It is made if it is missing.
    pub folder: PathBuf,
    /// File with the secret that URLs are signed with, at least 32 bytes. Without it, one is made once, beside the
    /// buckets, readable by its owner alone.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/objects.secret"]))]
    pub secret_file: Option<PathBuf>,
    /// Indexes that are open at a time; the others are opened when they are used.
    #[serde(default = "open_files")]
    pub open_files: u64,
}

impl Config {
    /// Buckets in this folder, with everything else as shipped.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), secret_file: None, open_files: open_files() }
    }
}

fn open_files() -> u64 {
    64
}
