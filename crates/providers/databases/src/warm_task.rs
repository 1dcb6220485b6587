//! The background task that fills a warm pool: once when it starts and after each claim. It runs apart from
//! all requests and ends when its handle is dropped.

use std::sync::Arc;

use async_trait::async_trait;
use tenantry_model::Failure;
use tokio::sync::watch;

/// A warm pool that the task fills.
#[async_trait]
pub trait Fill: Send + Sync + 'static {
    /// Discards outdated entries and creates missing ones, one after the other, until `stop` is set.
    async fn fill(self: Arc<Self>, stop: &StopSignal) -> Result<(), Failure>;
}

/// Tells the task to stop.
pub struct StopSignal(watch::Receiver<u64>);

impl StopSignal {
    /// True once the handle is dropped.
    pub fn is_set(&self) -> bool {
        self.0.has_changed().is_err()
    }
}

/// Handle of the task, which ends when this is dropped.
#[derive(Default)]
pub struct WarmTask {
    /// Number of requests so far.
    requested: watch::Sender<u64>,
    /// Number of the last request that is finished.
    done: watch::Sender<u64>,
}

impl WarmTask {
    /// Starts the task and requests a first fill. A second call changes nothing.
    pub fn start(&self, pool: Arc<dyn Fill>) {
        if self.requested.receiver_count() > 0 {
            return;
        }
        tokio::spawn(run(pool, self.requested.subscribe(), self.done.clone()));
        self.request();
    }

    /// Requests a fill; does nothing before `start`.
    pub fn request(&self) {
        if self.requested.receiver_count() > 0 {
            self.requested.send_modify(|number| *number += 1);
        }
    }

    /// Returns when the earlier requests are finished, whether they succeeded or not.
    pub async fn finished(&self) {
        let requested = *self.requested.borrow();
        // This handle holds a sender, so the channel is open.
        let _ = self.done.subscribe().wait_for(|done| *done >= requested).await;
    }

    /// Closes when the task has ended.
    #[cfg(test)]
    pub fn closed(&self) -> watch::Receiver<u64> {
        self.done.subscribe()
    }
}

/// The task. A first failure is logged, repeated ones are not; the next request tries again.
async fn run(pool: Arc<dyn Fill>, mut requested: watch::Receiver<u64>, done: watch::Sender<u64>) {
    let mut failing = false;
    while requested.changed().await.is_ok() {
        let number = *requested.borrow_and_update();
        let filled = pool.clone().fill(&StopSignal(requested.clone())).await;
        match &filled {
            Err(failure) if !failing => {
                tracing::warn!(%failure, "warm pool cannot be filled; tenants' databases are created on demand");
            }
            Ok(()) if failing => tracing::info!("warm pool is filled again"),
            _ => {}
        }
        failing = filled.is_err();
        done.send_replace(number);
    }
}
