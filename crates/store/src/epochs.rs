//! What a process remembers of the registry's epochs. They only grow, so a registry with an earlier one than was read before
//! is not the one that it was: a backup of it, or a standby that took over and lacked what was written last. There what
//! keeps two processes from leading at once holds no more, so a process that knows that does not serve it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

use super::Rejected;

/// The epochs that were read.
#[derive(Debug, Default)]
pub struct Epochs {
    latest: AtomicI64,
    went_back: AtomicBool,
}

impl Epochs {
    /// The latest that was read by now; taken before the next one is read.
    pub fn latest(&self) -> i64 {
        self.latest.load(SeqCst)
    }

    /// One that was read, and the latest from before that. Fails if the registry went back between them, and from then on.
    pub fn saw(&self, epoch: i64, before: i64) -> Result<i64, Rejected> {
        self.latest.fetch_max(epoch, SeqCst);
        if epoch < before && !self.went_back.swap(true, SeqCst) {
            tracing::error!(epoch, before, "{WENT_BACK}");
        }
        self.check().map(|()| epoch)
    }

    /// Fails once the registry went back. Another process may have raised its epoch since: it is not the same one for that.
    pub fn check(&self) -> Result<(), Rejected> {
        if !self.went_back.load(SeqCst) {
            return Ok(());
        }
        Err(Rejected::Unavailable(WENT_BACK.to_owned()))
    }
}

/// What the operator is told.
pub const WENT_BACK: &str = "the registry is older than one that this process has seen: a backup was restored, or a standby \
    without the last writes took over; point `store.url` to the current primary, or stop all processes and \
    start them again to continue with this registry";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_back_is_refused_for_good() {
        let epochs = Epochs::default();
        for epoch in [3, 3, 7] {
            assert_eq!(epochs.saw(epoch, epochs.latest()).unwrap(), epoch);
        }
        // Read before another task has seen the one that is later.
        assert_eq!(epochs.saw(6, 3).unwrap(), 6);
        epochs.check().unwrap();
        assert!(epochs.saw(6, epochs.latest()).is_err());
        assert!(epochs.saw(8, epochs.latest()).is_err() && epochs.check().is_err());
    }
}
