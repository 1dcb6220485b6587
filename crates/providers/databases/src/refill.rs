//! Keeps a stock of what is made before anybody wants it: one task, which fills it up whenever it is asked to. Nobody waits
//! for it, and it ends with whoever asks.

use std::sync::Arc;

use async_trait::async_trait;
use tenantry_model::Failure;
use tokio::sync::watch;

/// What is kept ready.
#[async_trait]
pub trait Stock: Send + Sync + 'static {
    /// Throws away what nobody may have any more and makes what is missing, one after the other, until it is told to stop.
    async fn fill(self: Arc<Self>, stop: &Stop) -> Result<(), Failure>;
}

/// Whether nobody asks any more.
pub struct Stop(watch::Receiver<u64>);

impl Stop {
    /// True once whoever asked is gone.
    pub fn is_told(&self) -> bool {
        self.0.has_changed().is_err()
    }
}

/// The way to the task, which ends when this is dropped.
#[derive(Default)]
pub struct Refill {
    /// How often more were asked for.
    asked: watch::Sender<u64>,
    /// Up to which time of asking that is done.
    answered: watch::Sender<u64>,
}

impl Refill {
    /// Makes what is missing, now and whenever it is asked for. A second call changes nothing.
    pub fn start(&self, stock: Arc<dyn Stock>) {
        if self.asked.receiver_count() > 0 {
            return;
        }
        tokio::spawn(refill(stock, self.asked.subscribe(), self.answered.clone()));
        self.ask();
    }

    /// Lets the task look for what is missing; without one, nothing happens.
    pub fn ask(&self) {
        if self.asked.receiver_count() > 0 {
            self.asked.send_modify(|times| *times += 1);
        }
    }

    /// Returns when everything is made that was asked for by now, or could not be.
    pub async fn refilled(&self) {
        let asked = *self.asked.borrow();
        // The sender is ours, so this cannot be the end of it.
        let _ = self.answered.subscribe().wait_for(|answered| *answered >= asked).await;
    }

    /// Ends with the task.
    #[cfg(test)]
    pub fn task(&self) -> watch::Receiver<u64> {
        self.answered.subscribe()
    }
}

/// The task. A failure is told once, and tried again when it is asked the next time.
async fn refill(stock: Arc<dyn Stock>, mut asked: watch::Receiver<u64>, answered: watch::Sender<u64>) {
    let mut failing = false;
    while asked.changed().await.is_ok() {
        let times = *asked.borrow_and_update();
        let filled = stock.clone().fill(&Stop(asked.clone())).await;
        match &filled {
            Err(failure) if !failing => {
                tracing::warn!(%failure, "no databases can be kept ready; each is made when it is wanted");
            }
            Ok(()) if failing => tracing::info!("databases are kept ready again"),
            _ => {}
        }
        failing = filled.is_err();
        answered.send_replace(times);
    }
}
