//! Serialises work per resource, in the order of the requests; different resources run in parallel. Work left
//! running by a cancelled attempt ends before the next attempt starts.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tenantry_model::Failure;
use tenantry_model::id::ResourceId;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Locks of the resources in use.
#[derive(Default)]
pub struct ResourceLocks {
    locks: Mutex<HashMap<ResourceId, Weak<AsyncMutex<()>>>>,
}

/// The lock of one resource, held until it is dropped.
pub type ResourceLock = OwnedMutexGuard<()>;

impl ResourceLocks {
    /// Waits for the lock of a resource.
    pub async fn lock(&self, resource: ResourceId) -> ResourceLock {
        let lock = {
            let mut locks = self.locks.lock();
            locks.retain(|_, lock| lock.strong_count() > 0);
            match locks.get(&resource).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(AsyncMutex::new(()));
                    locks.insert(resource, Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }

    /// Runs blocking work under the resource's lock. The work runs to completion even if the caller is
    /// cancelled, and later work on the same resource waits for it, so that a late write cannot follow a
    /// removal.
    pub async fn block<T: Send + 'static>(
        &self,
        resource: ResourceId,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let held = self.lock(resource).await;
        blocking(move || {
            let done = work();
            drop(held);
            done
        })
        .await
    }

    /// Like [`Self::block`], for asynchronous work.
    pub async fn run<T: Send + 'static>(
        &self,
        resource: ResourceId,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let held = self.lock(resource).await;
        let done = tokio::spawn(async move {
            let done = work.await;
            drop(held);
            done
        });
        done.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// Runs blocking work on a blocking thread.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(stopped()))
}

fn stopped() -> Failure {
    Failure::unknown("stopped", "the process was shut down during the operation")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn work_on_one_resource_is_serialised_and_locks_are_freed() {
        let locks = ResourceLocks::default();
        let (a, b) = (ResourceId::new(), ResourceId::new());
        let first = locks.lock(a).await;
        assert!(locks.lock(a).now_or_never().is_none(), "the same resource waits");
        let other = locks.lock(b).now_or_never().expect("another resource does not wait");
        drop((first, other));
        let again = locks.lock(a).now_or_never().expect("the resource is free again");
        assert_eq!(locks.locks.lock().len(), 1);
        drop(again);
    }
}
