//! Configuration of the buckets in folders.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// Where the buckets are.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder that contains one folder per bucket. Created if it is missing.
    pub folder: PathBuf,
    /// File with the secret that signs URLs, at least 32 bytes. Without it, Tenantry generates one beside the
    /// buckets, readable by its owner only.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/objects.secret"]))]
    pub secret_file: Option<PathBuf>,
    /// Maximum number of bucket indexes that are open at a time.
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
