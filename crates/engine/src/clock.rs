//! Time as the engine sees it, so that tests can own it.

use std::future::Future;
use std::pin::Pin;

use tenantry_model::Timestamp;

/// A future without borrowed parts.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Held while something is going on that time must not overtake. Only a virtual clock takes notice.
pub type Busy = Option<Box<dyn Send + Sync>>;

/// Where `now` comes from.
pub trait Clock: Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;
    /// Completes at that instant, or at once when it has passed.
    fn sleep_until(&self, at: Timestamp) -> Sleep;
    /// Says that work is under way until the value is dropped.
    fn busy(&self) -> Busy {
        None
    }
}

/// The machine's clock.
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
