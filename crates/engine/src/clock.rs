//! The engine's clock: the system clock, or a virtual one in tests.

use std::future::Future;
use std::pin::Pin;

use tenantry_model::Timestamp;

/// An owned future that completes at an instant.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Guard of work in progress: while one exists, a virtual clock does not advance. The system clock ignores
/// it.
pub type Busy = Option<Box<dyn Send + Sync>>;

/// Source of the time.
pub trait Clock: Send + Sync + 'static {
    /// The current instant.
    fn now(&self) -> Timestamp;
    /// Completes at `at`, or immediately when `at` has passed.
    fn sleep_until(&self, at: Timestamp) -> Sleep;
    /// Marks work in progress until the guard is dropped.
    fn busy(&self) -> Busy {
        None
    }
}

/// The system clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    fn sleep_until(&self, at: Timestamp) -> Sleep {
        Box::pin(tokio::time::sleep(at.since(Timestamp::now())))
    }
}
