//! A few connections whose calls block, such as those to a file. Each call runs on a blocking thread with a
//! connection of its own, so that the runtime never waits for the disk.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_model::{Failure, FailureClass};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::resource_locks::blocking;

/// Time that a call waits for a connection.
const WAIT: Duration = Duration::from_secs(30);

/// Opens a connection.
type Open<T> = dyn Fn() -> Result<T, Failure> + Send + Sync;

/// Up to a fixed number of connections of type `T`, opened when they are first needed.
pub struct Connections<T: Send + 'static> {
    turns: Arc<Semaphore>,
    shared: Arc<Shared<T>>,
    target: &'static str,
}

struct Shared<T: Send + 'static> {
    open: Box<Open<T>>,
    idle: Mutex<Vec<T>>,
}

impl<T: Send + 'static> Connections<T> {
    /// Opens nothing yet. `target` says in a message what the connections lead to.
    pub fn new(
        most: u32,
        target: &'static str,
        open: impl Fn() -> Result<T, Failure> + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared { open: Box::new(open), idle: Mutex::default() };
        Self { turns: Arc::new(Semaphore::new(most as usize)), shared: Arc::new(shared), target }
    }

    /// Runs blocking work with a connection. A connection whose work failed is closed, unless only the
    /// request was invalid. The work runs to completion even if the caller is cancelled.
    pub async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, Failure> {
        let turn = tokio::time::timeout(WAIT, self.turns.clone().acquire_owned()).await.map_err(|_| {
            Failure::retryable("busy", format!("all connections to {} are in use; try again", self.target))
        })?;
        let shared = self.shared.clone();
        let done = blocking(move || {
            let idle = shared.idle.lock().pop();
            let mut connection = idle.map_or_else(&shared.open, Ok)?;
            let done = work(&mut connection);
            if done.as_ref().err().is_none_or(|failure| failure.class == FailureClass::Invalid) {
                shared.idle.lock().push(connection);
            }
            drop(turn);
            done
        });
        done.await
    }
}

impl<T: Send + 'static> Drop for Shared<T> {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        // Closing a connection may write.
        if let (false, Ok(runtime)) = (idle.is_empty(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(idle));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn connections_are_limited_and_reused_unless_they_fail() {
        let opened = Arc::new(AtomicU32::new(0));
        let count = opened.clone();
        let connections = Connections::new(2, "the test", move || Ok(count.fetch_add(1, Ordering::Relaxed)));
        let slow = |_: &mut u32| {
            std::thread::sleep(Duration::from_millis(5));
            Ok(())
        };
        join_all((0..8).map(|_| connections.run(slow))).await.into_iter().for_each(Result::unwrap);
        assert_eq!(opened.load(Ordering::Relaxed), 2);
        for (failure, after) in
            [(Failure::invalid("bad", "request"), 2), (Failure::retryable("io_error", "broken"), 3)]
        {
            let failed = failure.clone();
            let run = connections.run(move |_| Err::<(), _>(failed));
            assert_eq!(run.await.unwrap_err(), failure);
            join_all([connections.run(slow), connections.run(slow)]).await;
            assert_eq!(opened.load(Ordering::Relaxed), after);
        }
    }
}
