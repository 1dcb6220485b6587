//! Configuration of the buckets in folders, and what a template's step may say to them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::quota::Quota;

/// Where the buckets are.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder that has a folder for each bucket. It is made if it is missing.
    pub folder: PathBuf,
    /// File with the secret that URLs are signed with, at least 32 bytes. Without it, one is made once, beside the
    /// buckets, readable by its owner alone.
    #[serde(default)]
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

/// What a step may say.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Bytes that the bucket may hold, such as `10GiB`; without it, as many as the disk has.
    #[serde(default)]
    pub quota_bytes: Option<Quota>,
    /// How objects are encrypted at rest.
    #[serde(default)]
    pub encryption: Encryption,
    /// What is deleted after a time.
    #[serde(default)]
    pub lifecycle: Vec<Rule>,
    /// Whether anybody may read it: never.
    #[serde(default)]
    pub public: bool,
}

/// How objects are encrypted at rest. A change holds for what is stored from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// Under a key that follows from the tenant's, which the master key wraps.
    #[default]
    Standard,
    /// Under a key of the bucket's own, which the tenant's key seals and which goes with the bucket.
    Enhanced,
}

impl Encryption {
    /// The word of templates, outputs and the index.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Enhanced => "enhanced",
        }
    }
}

/// When objects come to their end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// How their keys begin; empty: all of them.
    #[serde(default)]
    pub prefix: String,
    /// Days after they were stored.
    #[schemars(range(min = 1, max = 36500))]
    pub expire_after: u32,
}
