//! Turns: work on one resource happens one piece after the other, in the order of asking; work on others goes on beside
//! it. What an attempt that was given up has left running ends before the next attempt begins.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tenantry_model::Failure;
use tenantry_model::id::ResourceId;
use tokio::sync::{Mutex as Lane, OwnedMutexGuard};

/// The resources that are worked on.
#[derive(Default)]
pub struct Lanes {
    busy: Mutex<HashMap<ResourceId, Weak<Lane<()>>>>,
}

/// The right to work on a resource until it is dropped.
pub type Turn = OwnedMutexGuard<()>;

impl Lanes {
    /// Waits for its turn.
    pub async fn turn(&self, resource: ResourceId) -> Turn {
        let lane = {
            let mut busy = self.busy.lock();
            busy.retain(|_, lane| lane.strong_count() > 0);
            match busy.get(&resource).and_then(Weak::upgrade) {
                Some(lane) => lane,
                None => {
                    let lane = Arc::new(Lane::new(()));
                    busy.insert(resource, Arc::downgrade(&lane));
                    lane
                }
            }
        };
        lane.lock_owned().await
    }

    /// Runs work on a resource in its turn, where it may block. It goes on to its end even if the caller gives up; what
    /// comes next for the same resource waits for it, so that nothing late can appear behind a removal.
    pub async fn block<T: Send + 'static>(
        &self,
        resource: ResourceId,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = self.turn(resource).await;
        blocking(move || {
            let done = work();
            drop(turn);
            done
        })
        .await
    }

    /// The same for work that waits.
    pub async fn run<T: Send + 'static>(
        &self,
        resource: ResourceId,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = self.turn(resource).await;
        let done = tokio::spawn(async move {
            let done = work.await;
            drop(turn);
            done
        });
        done.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// Runs work where it may block.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(stopped()))
}

fn stopped() -> Failure {
    Failure::unknown("stopped", "the process was shut down during the work")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn one_after_the_other_and_nothing_is_kept() {
        let lanes = Lanes::default();
        let (a, b) = (ResourceId::new(), ResourceId::new());
        let first = lanes.turn(a).await;
        assert!(lanes.turn(a).now_or_never().is_none(), "the same resource waits");
        let other = lanes.turn(b).now_or_never().expect("another resource does not");
        drop((first, other));
        let again = lanes.turn(a).now_or_never().expect("free again");
        assert_eq!(lanes.busy.lock().len(), 1);
        drop(again);
    }
}
