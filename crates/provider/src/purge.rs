//! Purging: a provider whose resources share files removes what deleted rows leave in these files.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tenantry_model::Failure;

/// How copies of deleted rows were removed from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PurgeMethod {
    /// The unused parts of all pages were overwritten.
    Overwritten,
    /// The file was written again without its unused parts.
    Rewritten,
    /// The log was copied into its database and truncated.
    Truncated,
}

impl PurgeMethod {
    /// The word for it, as it is serialized.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overwritten => "overwritten",
            Self::Rewritten => "rewritten",
            Self::Truncated => "truncated",
        }
    }
}

/// A file from which copies of deleted rows were removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// Name of the file, without its folder.
    pub file: String,
    /// How the copies were removed.
    pub method: PurgeMethod,
    /// Size of the file afterwards.
    pub bytes: u64,
}

/// A provider whose resources share files.
#[async_trait]
pub trait Purge: Send + Sync {
    /// Removes the copies of rows that were deleted before this call, and returns the files. While another program keeps a
    /// transaction open, returns a retryable failure. Safe to repeat, and to call while other verbs run.
    async fn purge(&self) -> Result<Vec<Purged>, Failure>;
}
