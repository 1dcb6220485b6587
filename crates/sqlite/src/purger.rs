//! Purges a file for many callers: those that wait at the same time share one run.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use tenantry_provider::Purged;
use tenantry_provider::resource_locks::blocking;
use tokio::sync::Mutex;

use super::{PurgeError, purge};

/// Result of a run.
type Outcome = Result<Vec<Purged>, PurgeError>;

/// Purges one file.
pub struct Purger {
    file: PathBuf,
    /// Number of runs that have begun.
    begun: AtomicU64,
    /// The last run's number and outcome. Locked during a run.
    last: Mutex<Option<(u64, Outcome)>>,
}

impl Purger {
    /// A purger of this file, which need not exist yet.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), begun: AtomicU64::new(0), last: Mutex::default() }
    }

    /// Does what [`purge`] does, for rows that were deleted before this call.
    pub async fn purge(&self) -> Outcome {
        let before = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        // A run that began after this call has seen the deletions of this caller.
        if let Some((number, outcome)) = &*last
            && *number > before
        {
            return outcome.clone();
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let file = self.file.clone();
        let outcome = blocking(move || Ok(purge(&file))).await.unwrap_or_else(|_| Err(PurgeError::Stopped));
        *last = Some((number, outcome.clone()));
        outcome
    }
}
