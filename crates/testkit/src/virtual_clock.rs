//! A clock whose time stands still while anything is under way and jumps to the next deadline when nothing is.
//!
//! It never sleeps for real. What it cannot see (a thread, a socket) it may overtake, unless somebody holds a
//! [`Clock::busy`] token meanwhile; the engine holds one around every call of its ledger and its steps.

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

/// How often everything else that is ready gets to run, with nothing changing, before time jumps.
const LOOKS: usize = 16;

/// A virtual clock. Clones show the same time; when the last one goes, time stands still for ever.
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
    /// Tokens out. Below zero only for an instant, when an attempt that hangs is dropped.
    busy: i64,
    sleepers: BTreeMap<(Timestamp, u64), Waker>,
    /// Sleepers whose time has come and who have not looked yet; each counts as busy.
    woken: BTreeSet<u64>,
    /// Counts what happens: as long as it stands still, nothing has.
    generation: u64,
}

impl VirtualClock {
    /// A clock that starts at some instant. Must be called within a tokio runtime.
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

    /// Never completes, and holds no token while it is pending: a provider that hangs. Only for work that itself
    /// holds a token, such as an attempt.
    pub async fn hang(&self) {
        let _released = Released::new(&self.0.shared);
        std::future::pending().await
    }

    /// Completes after `duration`, and holds no token until then: a provider that takes its time. Only for work that
    /// itself holds a token, such as an attempt.
    pub async fn take(&self, duration: Duration) {
        let _released = Released::new(&self.0.shared);
        self.sleep_until(self.now() + duration).await;
    }

    /// Waits until nothing is under way and nobody waits for a later time: from then on nothing happens by itself.
    /// False: time has passed `limit` before that.
    pub async fn quiet(&self, limit: Timestamp) -> bool {
        let shared = &self.0.shared;
        loop {
            let changed = shared.changed.notified();
            let (late, still, generation) = {
                let state = shared.state.lock();
                (state.now > limit, state.busy == 0 && state.sleepers.is_empty(), state.generation)
            };
            if late {
                return false;
            }
            if still && shared.stands_still(generation).await {
                return true;
            }
            if !still {
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

    /// Lets everything that is ready run; true if nothing has concerned this clock since that generation.
    async fn stands_still(&self, before: u64) -> bool {
        for _ in 0..LOOKS {
            tokio::task::yield_now().await;
            if self.state.lock().generation != before {
                return false;
            }
        }
        true
    }
}

/// Moves the time, for ever.
async fn tick(shared: Arc<Shared>) {
    loop {
        let changed = shared.changed.notified();
        let (idle, generation) = {
            let state = shared.state.lock();
            (state.busy == 0 && !state.sleepers.is_empty(), state.generation)
        };
        if !idle {
            changed.await;
        } else if shared.stands_still(generation).await {
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

/// The opposite of a token: takes one back for as long as it lives.
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
            // Asked again by somebody else's waking: nothing has happened.
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
    async fn work_stops_the_time_and_what_hangs_does_not() {
        let clock = VirtualClock::start();
        let begin = clock.now();
        let busy = clock.busy();
        let slept = tokio::spawn(clock.sleep_until(begin + HOUR));
        for _ in 0..LOOKS * 4 {
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
    async fn whoever_was_woken_goes_first() {
        let clock = VirtualClock::start();
        let begin = clock.now();
        let work = async {
            clock.sleep_until(begin + HOUR).await;
            let _busy = clock.busy();
            for _ in 0..LOOKS * 4 {
                tokio::task::yield_now().await;
            }
            clock.now()
        };
        let (now, ()) = tokio::join!(work, clock.sleep_until(begin + HOUR * 2));
        assert_eq!(now, begin + HOUR);
    }

    #[tokio::test]
    async fn quiet_sees_the_limit() {
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
