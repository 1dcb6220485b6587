//! A virtual clock: time stops while work is in progress and jumps to the next deadline when none is. Work
//! outside the tokio runtime (threads, sockets) must hold a [`Clock::busy`] guard; the engine holds one
//! during each call of its ledger and its steps.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_engine::Clock;
use tenantry_engine::clock::{Busy, Sleep};
use tenantry_model::Timestamp;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Yields to other tasks without a change before time jumps.
const YIELDS: usize = 16;

/// A virtual clock. Clones share the time; after the last one is dropped, time stops.
#[derive(Clone)]
pub struct VirtualClock(Arc<Ticking>);

struct Ticking {
    shared: Arc<Shared>,
    ticker: AbortHandle,
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.ticker.abort();
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    now: Timestamp,
    /// Number of guards. Negative only while a hanging attempt is dropped.
    busy: i64,
    sleepers: BTreeMap<(Timestamp, u64), Waker>,
    /// Sleepers that are due and not polled yet; each counts as busy.
    woken: BTreeSet<u64>,
    /// Incremented by every change.
    generation: u64,
}

impl VirtualClock {
    /// Starts a clock. Must be called within a tokio runtime.
    pub fn start() -> Self {
        let state = State {
            now: Timestamp::from_micros(1_800_000_000_000_000),
            busy: 0,
            sleepers: BTreeMap::new(),
            woken: BTreeSet::new(),
            generation: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() });
        let ticker = tokio::spawn(tick(shared.clone())).abort_handle();
        Self(Arc::new(Ticking { shared, ticker }))
    }

    /// A hanging provider: never completes, and releases the guard of the calling attempt while it is
    /// pending.
    pub async fn hang(&self) {
        let _released = Released::new(&self.0.shared);
        std::future::pending().await
    }

    /// A slow provider: completes after `duration`, and releases the guard of the calling attempt until then.
    pub async fn take(&self, duration: Duration) {
        let _released = Released::new(&self.0.shared);
        self.sleep_until(self.now() + duration).await;
    }

    /// Waits until no work is in progress and no sleeper is left. False when time passes `limit` before.
    pub async fn quiet(&self, limit: Timestamp) -> bool {
        let shared = &self.0.shared;
        loop {
            let changed = shared.changed.notified();
            let (late, quiet, generation) = {
                let state = shared.state.lock();
                (state.now > limit, state.busy == 0 && state.sleepers.is_empty(), state.generation)
            };
            if late {
                return false;
            }
            if quiet && shared.is_unchanged(generation).await {
                return true;
            }
            if !quiet {
                changed.await;
            }
        }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.0.shared.state.lock().now
    }
    fn sleep_until(&self, at: Timestamp) -> Sleep {
        Box::pin(Sleeper { shared: self.0.shared.clone(), at, number: None })
    }
    fn busy(&self) -> Busy {
        self.0.shared.change(|state| state.busy += 1);
        Some(Box::new(Token(self.0.shared.clone())))
    }
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        state.generation += 1;
        let result = change(&mut state);
        drop(state);
        self.changed.notify_waiters();
        result
    }

    /// Runs ready tasks; true when the clock has not changed since this generation.
    async fn is_unchanged(&self, before: u64) -> bool {
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
            if self.state.lock().generation != before {
                return false;
            }
        }
        true
    }
}

/// Advances the time until the task is aborted.
async fn tick(shared: Arc<Shared>) {
    loop {
        let changed = shared.changed.notified();
        let (idle, generation) = {
            let state = shared.state.lock();
            (state.busy == 0 && !state.sleepers.is_empty(), state.generation)
        };
        if !idle {
            changed.await;
        } else if shared.is_unchanged(generation).await {
            shared.change(|state| {
                let Some((next, _)) = state.sleepers.first_key_value() else { return };
                state.now = state.now.max(next.0);
                let later = state.sleepers.split_off(&(state.now, u64::MAX));
                for ((_, number), waker) in std::mem::replace(&mut state.sleepers, later) {
                    state.woken.insert(number);
                    state.busy += 1;
                    waker.wake();
                }
            });
        }
    }
}

struct Token(Arc<Shared>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.change(|state| state.busy -= 1);
    }
}

/// Releases one guard until it is dropped.
struct Released(Arc<Shared>);

impl Released {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.change(|state| state.busy -= 1);
        Self(shared.clone())
    }
}

impl Drop for Released {
    fn drop(&mut self) {
        self.0.change(|state| state.busy += 1);
    }
}

struct Sleeper {
    shared: Arc<Shared>,
    at: Timestamp,
    number: Option<u64>,
}

impl Future for Sleeper {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let mut state = self.shared.state.lock();
        if state.now >= at {
            drop(state);
            self.forget();
            return Poll::Ready(());
        }
        match self.number {
            // Polled again without a change.
            Some(number) => {
                state.sleepers.insert((at, number), cx.waker().clone());
            }
            None => {
                state.generation += 1;
                let number = state.generation;
                state.sleepers.insert((at, number), cx.waker().clone());
                drop(state);
                self.number = Some(number);
                self.shared.changed.notify_waiters();
            }
        }
        Poll::Pending
    }
}

impl Sleeper {
    fn forget(&mut self) {
        let Some(number) = self.number.take() else { return };
        let at = self.at;
        self.shared.change(|state| {
            state.sleepers.remove(&(at, number));
            if state.woken.remove(&number) {
                state.busy -= 1;
            }
        });
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn time_jumps_from_deadline_to_deadline() {
        let clock = VirtualClock::start();
        let begin = clock.now();
        let order = Mutex::new(Vec::new());
        let sleep = async |hours: u32| {
            clock.sleep_until(begin + HOUR * hours).await;
            order.lock().push((hours, clock.now().since(begin)));
        };
        tokio::join!(sleep(30), sleep(1), sleep(2), sleep(1));
        assert_eq!(order.into_inner(), [(1, HOUR), (1, HOUR), (2, HOUR * 2), (30, HOUR * 30)]);
    }

    #[tokio::test]
    async fn work_stops_the_time_and_a_hanging_call_does_not() {
        let clock = VirtualClock::start();
        let begin = clock.now();
        let busy = clock.busy();
        let slept = tokio::spawn(clock.sleep_until(begin + HOUR));
        for _ in 0..YIELDS * 4 {
            tokio::task::yield_now().await;
        }
        assert_eq!((clock.now(), slept.is_finished()), (begin, false));
        let hanging = tokio::spawn({
            let clock = clock.clone();
            async move { clock.hang().await }
        });
        assert!(slept.await.is_ok());
        assert_eq!(clock.now(), begin + HOUR);
        hanging.abort();
        drop(busy);
        assert!(clock.quiet(begin + HOUR).await);
    }

    #[tokio::test]
    async fn a_woken_sleeper_runs_before_the_next_jump() {
        let clock = VirtualClock::start();
        let begin = clock.now();
        let work = async {
            clock.sleep_until(begin + HOUR).await;
            let _busy = clock.busy();
            for _ in 0..YIELDS * 4 {
                tokio::task::yield_now().await;
            }
            clock.now()
        };
        let (now, ()) = tokio::join!(work, clock.sleep_until(begin + HOUR * 2));
        assert_eq!(now, begin + HOUR);
    }

    #[tokio::test]
    async fn quiet_returns_false_after_the_limit() {
        let clock = VirtualClock::start();
        let begin = clock.now();
        let _forever = tokio::spawn({
            let clock = clock.clone();
            async move {
                loop {
                    clock.sleep_until(clock.now() + HOUR).await;
                }
            }
        });
        assert!(!clock.quiet(begin + HOUR * 100).await);
    }
}
