//! Detects that the registry was replaced by an older copy: remembers the highest epoch that this process has
//! read, and rejects a registry with a lower one. Keeps its state in memory, and logs an error when it
//! detects a lower epoch.
//!
//! The epoch of a registry only grows. It is lower after a backup was restored, or after a standby of the
//! database took over without the last writes. Epochs no longer prevent two leaders then, so the process
//! stops serving this registry.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

use super::Rejected;

/// The highest epoch that this process has read, and whether it has read a lower one since.
#[derive(Debug, Default)]
pub struct Epochs {
    latest: AtomicI64,
    went_back: AtomicBool,
}

impl Epochs {
    /// Highest epoch so far. The caller gets it before it reads the next one, and passes it to [`Self::saw`].
    pub fn latest(&self) -> i64 {
        self.latest.load(SeqCst)
    }

    /// Records an epoch that was read; `before` is [`Self::latest`] from before that read. Returns an error
    /// if the epoch is lower than `before`, and for every later epoch too.
    pub fn saw(&self, epoch: i64, before: i64) -> Result<i64, Rejected> {
        self.latest.fetch_max(epoch, SeqCst);
        if epoch < before && !self.went_back.swap(true, SeqCst) {
            tracing::error!(epoch, before, "{WENT_BACK}");
        }
        self.check().map(|()| epoch)
    }

    /// Returns an error once a lower epoch was read, even if another process has raised the epoch since: the
    /// registry still lacks writes.
    pub fn check(&self) -> Result<(), Rejected> {
        if !self.went_back.load(SeqCst) {
            return Ok(());
        }
        Err(Rejected::Unavailable(WENT_BACK.to_owned()))
    }
}

/// Message to the operator, in the log and in responses.
pub const WENT_BACK: &str = "the registry is older than one that this process has seen: a backup was restored, or a standby \
    without the last writes took over; point `store.url` to the current primary, or stop all processes and \
    start them again to continue with this registry";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_epoch_is_rejected_permanently() {
        let epochs = Epochs::default();
        for epoch in [3, 3, 7] {
            assert_eq!(epochs.saw(epoch, epochs.latest()).unwrap(), epoch);
        }
        // This read began before another task read 7, so 6 does not count as lower.
        assert_eq!(epochs.saw(6, 3).unwrap(), 6);
        epochs.check().unwrap();
        assert!(epochs.saw(6, epochs.latest()).is_err());
        assert!(epochs.saw(8, epochs.latest()).is_err() && epochs.check().is_err());
    }
}
