//! The local executor: carries out what `decide` says, in this process, with one task per operation that is doing
//! something. An operation that only waits has no task: a row in the ledger and an entry in the timer heap.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_model::{Timestamp, id::OperationId};
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio::task::JoinSet;

use crate::clock::{Clock, SystemClock};
use crate::driver::{Driver, Next};
use crate::ledger::{CommitError, Ledger};
use crate::operation::Run;
use crate::run::Steps;
use crate::signal::Signal;

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub struct ExecutorConfig {
    /// Operations that may do something at the same time; the others wait their turn.
    pub max_active: usize,
    /// Longest wait for running attempts when the executor is asked to stop.
    pub grace: Duration,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self { max_active: 256, grace: Duration::from_secs(10) }
    }
}

/// The executor. Cheap to clone; when the last clone is gone, everything it runs is cut off where it is, which is
/// safe: the next one goes on from the ledger.
pub struct Executor<S: Steps> {
    shared: Arc<Shared<S>>,
    tasks: Arc<Tasks>,
}

impl<S: Steps> Clone for Executor<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), tasks: self.tasks.clone() }
    }
}

/// What the tasks share.
pub(crate) struct Shared<S: Steps> {
    pub ledger: Arc<dyn Ledger<S::Effect>>,
    pub steps: Arc<S>,
    pub clock: Arc<dyn Clock>,
    pub changes: broadcast::Sender<Arc<Run>>,
    pub epoch: AtomicI64,
    pub stopping: AtomicBool,
    slots: Mutex<HashMap<OperationId, Arc<Slot>>>,
    emptied: Notify,
    timers: Mutex<BinaryHeap<Reverse<(Timestamp, OperationId)>>>,
    timer_set: Notify,
    turns: Semaphore,
    grace: Duration,
}

/// The place of one active operation.
#[derive(Default)]
pub(crate) struct Slot {
    /// A hint came that the task has not seen: signals may wait in the ledger, or a timer is due.
    pub hinted: AtomicBool,
    pub wake: Notify,
}

/// Every task of an executor; dropping it ends them at their next await.
struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.0.lock();
        while set.try_join_next().is_some() {}
        set.spawn(task);
    }
}

impl<S: Steps> Executor<S> {
    /// Takes over the ledger (every earlier executor's commits are refused from here on) and goes on with what it finds.
    pub async fn start(
        ledger: Arc<dyn Ledger<S::Effect>>,
        steps: Arc<S>,
        config: ExecutorConfig,
    ) -> Result<Self, CommitError> {
        Self::start_with_clock(ledger, steps, config, Arc::new(SystemClock)).await
    }

    /// The same with another clock.
    pub async fn start_with_clock(
        ledger: Arc<dyn Ledger<S::Effect>>,
        steps: Arc<S>,
        config: ExecutorConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CommitError> {
        let busy = clock.busy();
        let epoch = ledger.begin_epoch().await?;
        let unfinished = ledger.unfinished().await?;
        let shared = Arc::new(Shared {
            ledger,
            steps,
            changes: broadcast::channel(4096).0,
            epoch: AtomicI64::new(epoch),
            stopping: AtomicBool::new(false),
            slots: Mutex::default(),
            emptied: Notify::new(),
            timers: Mutex::default(),
            timer_set: Notify::new(),
            turns: Semaphore::new(config.max_active),
            grace: config.grace,
            clock,
        });
        let executor = Self { shared, tasks: Arc::new(Tasks(Mutex::default())) };
        let now = executor.shared.clock.now();
        for waiting in unfinished {
            match waiting.wake_at {
                _ if !waiting.idle || waiting.signalled => executor.hint(waiting.id),
                Some(at) if at <= now => executor.hint(waiting.id),
                Some(at) => executor.shared.set_timer(at, waiting.id),
                None => {}
            }
        }
        executor.tasks.spawn(watch_timers(executor.shared.clone(), Arc::downgrade(&executor.tasks)));
        drop(busy);
        Ok(executor)
    }

    /// Begins a new operation: decides, runs the transactional steps, and commits all of it with `effects` in one
    /// transaction. When this returns, the operation cannot be lost. `Unavailable` leaves open whether it was begun.
    pub async fn submit(&self, run: Run, effects: Vec<S::Effect>) -> Result<Arc<Run>, CommitError> {
        let _busy = self.shared.clock.busy();
        let id = run.operation.id;
        let mut driver = Driver::new(self.shared.clone(), run);
        match driver.submit(effects).await {
            Ok(()) => {}
            Err(CommitError::Unavailable(why)) => {
                // It may stand in the ledger all the same: whoever looks finds it there and goes on.
                self.hint(id);
                return Err(CommitError::Unavailable(why));
            }
            Err(refused) => return Err(refused),
        }
        let run = driver.snapshot();
        for woken in driver.take_woken() {
            self.hint(woken);
        }
        if !run.operation.state.is_final() {
            self.spawn(id, Some(driver));
        }
        Ok(run)
    }

    /// Commits a signal with `effects` and wakes its operation. False: there is no such operation.
    pub async fn signal(
        &self,
        id: OperationId,
        signal: Signal,
        effects: Vec<S::Effect>,
    ) -> Result<bool, CommitError> {
        let _busy = self.shared.clock.busy();
        let found = self.shared.ledger.signal(id, signal, effects).await?;
        if found {
            self.hint(id);
        }
        Ok(found)
    }

    /// Says that there may be something to do for an operation. Harmless when there is not.
    pub fn hint(&self, id: OperationId) {
        self.spawn(id, None);
    }

    /// Every committed change of an operation from now on. A slow reader loses the oldest.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Run>> {
        self.shared.changes.subscribe()
    }

    /// Operations with a task at this moment, and timers that are set.
    pub fn load(&self) -> (usize, usize) {
        (self.shared.slots.lock().len(), self.shared.timers.lock().len())
    }

    /// Begins nothing new, waits for the attempts that run to end (at most the grace period), and stops.
    pub async fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for slot in self.shared.slots.lock().values() {
            slot.wake.notify_one();
        }
        let emptied = async {
            loop {
                let changed = self.shared.emptied.notified();
                if self.shared.slots.lock().is_empty() {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(self.shared.grace, emptied).await.is_err() {
            tracing::warn!(
                "attempts still run after the grace period; they are cut off and begun again at the next start"
            );
        }
        let mut tasks = std::mem::take(&mut *self.tasks.0.lock());
        tasks.shutdown().await;
    }

    fn spawn(&self, id: OperationId, driver: Option<Driver<S>>) {
        spawn(&self.shared, &self.tasks, id, driver);
    }
}

/// Gives the operation a task, or tells the one it has.
fn spawn<S: Steps>(shared: &Arc<Shared<S>>, tasks: &Arc<Tasks>, id: OperationId, driver: Option<Driver<S>>) {
    let slot = {
        let mut slots = shared.slots.lock();
        if let Some(slot) = slots.get(&id) {
            slot.hinted.store(true, Ordering::SeqCst);
            slot.wake.notify_one();
            return;
        }
        let slot = Arc::new(Slot::default());
        // A task without a run of its own must load one; one with a run may still find signals.
        slot.hinted.store(driver.is_none(), Ordering::SeqCst);
        slots.insert(id, slot.clone());
        slot
    };
    let busy = shared.clock.busy();
    let (shared, weak) = (shared.clone(), Arc::downgrade(tasks));
    tasks.spawn(async move {
        let Ok(_turn) = shared.turns.acquire().await else { return };
        let spawn_woken = |woken| {
            if let Some(tasks) = weak.upgrade() {
                spawn(&shared, &tasks, woken, None);
            }
        };
        let mut driver = driver;
        let mut busy = busy;
        let mut patience = Patience::default();
        loop {
            let next = match &mut driver {
                Some(driver) => driver.drive(&slot, busy.take(), spawn_woken).await,
                None => {
                    slot.hinted.store(false, Ordering::SeqCst);
                    match Driver::load(&shared, id).await {
                        Ok(Some((mut loaded, signals))) => {
                            let next = loaded.resume(&slot, &signals, busy.take(), spawn_woken).await;
                            driver = Some(loaded);
                            next
                        }
                        // Unknown, or owned by a newer executor: not ours to touch.
                        Ok(None) => Next::Rest,
                        Err(why) => Next::Reload(why),
                    }
                }
            };
            busy = shared.clock.busy();
            match next {
                Next::Rest => {
                    patience = Patience::default();
                    // The slot goes only if no hint came meanwhile: both happen under the same lock.
                    let mut slots = shared.slots.lock();
                    if !slot.hinted.load(Ordering::SeqCst) || shared.stopping.load(Ordering::SeqCst) {
                        slots.remove(&id);
                        break;
                    }
                }
                Next::Reload(why) => {
                    driver = None;
                    tracing::warn!(operation = %id, "the ledger is read again: {why}");
                    if matches!(why, CommitError::Unavailable(_)) {
                        drop(busy.take());
                        patience.wait(&*shared.clock).await;
                    }
                }
            }
        }
        shared.emptied.notify_waiters();
        drop(busy);
    });
}

/// Delays before a ledger that does not answer is asked again: doubling, to a limit.
struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(Duration::from_millis(50))
    }
}

impl Patience {
    async fn wait(&mut self, clock: &dyn Clock) {
        clock.sleep_until(clock.now() + self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(5));
    }
}

impl<S: Steps> Shared<S> {
    /// Wakes the operation at that instant.
    pub fn set_timer(&self, at: Timestamp, id: OperationId) {
        self.timers.lock().push(Reverse((at, id)));
        self.timer_set.notify_one();
    }
}

async fn watch_timers<S: Steps>(shared: Arc<Shared<S>>, tasks: std::sync::Weak<Tasks>) {
    loop {
        let next = shared.timers.lock().peek().map(|Reverse((at, _))| *at);
        match next {
            None => shared.timer_set.notified().await,
            Some(at) => {
                tokio::select! {
                    () = shared.clock.sleep_until(at) => {}
                    () = shared.timer_set.notified() => continue,
                }
                let _busy = shared.clock.busy();
                let now = shared.clock.now();
                loop {
                    let due = {
                        let mut timers = shared.timers.lock();
                        match timers.peek() {
                            Some(Reverse((at, _))) if *at <= now => timers.pop(),
                            _ => None,
                        }
                    };
                    let (Some(Reverse((_, id))), Some(tasks)) = (due, tasks.upgrade()) else { break };
                    spawn(&shared, &tasks, id, None);
                }
            }
        }
    }
}
