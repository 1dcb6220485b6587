//! The executor: runs operations in this process, one task per active operation. An idle operation has no
//! task, only its row in the ledger and a timer. Of the executors on one ledger one is the leader. The others
//! are standbys: they commit new operations and signals, and the server notifies the leader, which calls
//! `notice`.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_model::Timestamp;
use tenantry_model::id::{OperationId, SignalId};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::clock::{Busy, Clock, SystemClock};
use crate::driver::{Driver, Next, Woken};
use crate::follow::{Changes, Followers};
use crate::ledger::{CommitError, Ledger};
use crate::operation::Run;
use crate::retry::RETRY_FOR;
use crate::run::Steps;
use crate::signal::{Signal, SignalKind};
use crate::waiting::WaitingOperations;

/// Longest delay before a retry, unless the server asked for a longer one.
const SOON: Duration = Duration::from_secs(60);

/// Limits of an executor.
#[derive(Clone, Copy, Debug)]
pub struct ExecutorConfig {
    /// Operations that are active at the same time; further ones wait.
    pub max_active: usize,
    /// Longest wait for running attempts when the executor stops.
    pub grace: Duration,
    /// Time for which a dependency that does not work is waited for, where a step's policy names none.
    pub retry_for: Duration,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self { max_active: 256, grace: Duration::from_secs(10), retry_for: RETRY_FOR }
    }
}

/// The executor. Cheap to clone. Dropping the last clone cancels its attempts; the next executor continues
/// from the ledger.
pub struct Executor<S: Steps> {
    shared: Arc<Shared<S>>,
    /// Tasks of active operations.
    tasks: Arc<Tasks>,
    /// Tasks that a standby has too: commits of signals, updates of followers.
    background: Arc<Tasks>,
}

impl<S: Steps> Clone for Executor<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), tasks: self.tasks.clone(), background: self.background.clone() }
    }
}

/// State that the tasks share.
pub(crate) struct Shared<S: Steps> {
    pub ledger: Arc<dyn Ledger<S::Effect>>,
    pub steps: Arc<S>,
    pub clock: Arc<dyn Clock>,
    pub followers: Arc<Followers>,
    pub epoch: AtomicI64,
    /// True on the leader.
    pub running: AtomicBool,
    pub stopping: AtomicBool,
    slots: Mutex<HashMap<OperationId, Arc<Slot>>>,
    emptied: Notify,
    timers: Mutex<BTreeSet<(Timestamp, OperationId)>>,
    /// Guards for timers that `watch_timers` has not read yet: a virtual clock waits for them.
    unseen: Mutex<Vec<Busy>>,
    timer_set: Notify,
    permits: Semaphore,
    pub waiting: WaitingOperations,
    /// True from a take-over to the first look at the ledger.
    is_new: AtomicBool,
    /// True from a failed call of the ledger to the next one that succeeds: an outage is logged once.
    ledger_down: AtomicBool,
    grace: Duration,
    pub retry_for: Duration,
}

/// Entry of one active operation.
#[derive(Default)]
pub(crate) struct Slot {
    /// A hint that the task has not handled: the ledger may have signals, or a timer is due.
    pub hinted: AtomicBool,
    pub wake: Notify,
}

/// A set of tasks; dropping it cancels them at their next await.
struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.0.lock();
        while set.try_join_next().is_some() {}
        set.spawn(task);
    }
}

impl<S: Steps> Executor<S> {
    /// Takes over the ledger, which rejects the commits of earlier executors from then on, and continues its
    /// operations.
    pub async fn start(
        ledger: Arc<dyn Ledger<S::Effect>>,
        steps: Arc<S>,
        config: ExecutorConfig,
    ) -> Result<Self, CommitError> {
        Self::start_with_clock(ledger, steps, config, Arc::new(SystemClock)).await
    }

    /// `start` with another clock.
    pub async fn start_with_clock(
        ledger: Arc<dyn Ledger<S::Effect>>,
        steps: Arc<S>,
        config: ExecutorConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CommitError> {
        let executor = Self::standing_by(ledger, steps, config, clock);
        let _busy = executor.shared.clock.busy();
        executor.take_over().await?;
        executor.look().await?;
        Ok(executor)
    }

    /// A standby on the ledger of another executor.
    pub fn standing_by(
        ledger: Arc<dyn Ledger<S::Effect>>,
        steps: Arc<S>,
        config: ExecutorConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let shared = Arc::new(Shared {
            ledger,
            steps,
            followers: Arc::default(),
            epoch: AtomicI64::new(0),
            running: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            slots: Mutex::default(),
            emptied: Notify::new(),
            timers: Mutex::default(),
            unseen: Mutex::default(),
            timer_set: Notify::new(),
            waiting: WaitingOperations::default(),
            is_new: AtomicBool::new(false),
            ledger_down: AtomicBool::new(false),
            permits: Semaphore::new(config.max_active.max(1)),
            grace: config.grace,
            retry_for: config.retry_for,
            clock,
        });
        let [tasks, background] = [(); 2].map(|()| Arc::new(Tasks(Mutex::default())));
        Self { shared, tasks, background }
    }

    /// Takes over the ledger, which rejects the commits of earlier executors from then on. Call
    /// [`Self::look`] after it.
    pub async fn take_over(&self) -> Result<(), CommitError> {
        let shared = &self.shared;
        shared.epoch.fetch_max(shared.ledger.begin_epoch().await?, Ordering::SeqCst);
        shared.is_new.store(true, Ordering::SeqCst);
        shared.running.store(true, Ordering::SeqCst);
        self.tasks.spawn(watch_timers(shared.clone(), Arc::downgrade(&self.tasks)));
        Ok(())
    }

    /// The epoch of its commits.
    pub fn epoch(&self) -> i64 {
        self.shared.epoch.load(Ordering::SeqCst)
    }

    /// Finds operations to continue in the ledger: after a take-over, or when notifications may have been
    /// lost.
    pub async fn look(&self) -> Result<(), CommitError> {
        let unfinished = self.shared.ledger.unfinished().await?;
        // A new leader does not know which providers work: what would be retried soon is retried now (`recover`).
        let soon = if self.shared.is_new.swap(false, Ordering::SeqCst) { SOON } else { Duration::ZERO };
        let soon = self.shared.clock.now() + soon;
        for waiting in unfinished {
            match waiting.wake_at {
                _ if !waiting.idle || waiting.signalled => self.hint(waiting.id),
                Some(at) if at <= soon => self.hint(waiting.id),
                Some(at) => self.shared.set_timer(at, waiting.id),
                None => {}
            }
        }
        Ok(())
    }

    /// Cancels every task, because another executor becomes the leader.
    pub async fn stand_by(&self) {
        self.shared.running.store(false, Ordering::SeqCst);
        let mut tasks = std::mem::take(&mut *self.tasks.0.lock());
        tasks.shutdown().await;
        self.shared.timers.lock().clear();
        self.shared.unseen.lock().clear();
        self.shared.waiting.clear();
    }

    /// True on the leader.
    pub fn is_running(&self) -> bool {
        self.shared.running.load(Ordering::SeqCst)
    }

    /// Handles a notification: another executor on this ledger has committed a change of this operation.
    pub fn notice(&self, id: OperationId) {
        if self.is_running() {
            return self.hint(id);
        }
        if !self.shared.followers.any(id) {
            return;
        }
        let shared = self.shared.clone();
        self.background.spawn(async move {
            match shared.ledger.load(id).await {
                Ok(Some((run, _))) => shared.followers.tell(&Arc::new(run)),
                Ok(None) => {}
                Err(why) => tracing::debug!(operation = %id, "followers not updated: {why}"),
            }
        });
    }

    /// Calls [`Self::notice`] for every followed operation, when notifications may have been lost.
    pub fn notice_all(&self) {
        self.shared.followers.all().into_iter().for_each(|id| self.notice(id));
    }

    /// Starts a new operation: decides, runs the transactional steps, and commits them with `effects` in one
    /// transaction. After `Unavailable` it may or may not have been committed. Dropping the future does not
    /// cancel it.
    pub async fn submit(&self, run: Run, effects: Vec<S::Effect>) -> Result<Arc<Run>, CommitError> {
        loop {
            if self.is_running() {
                return self.submit_once(run, effects).await;
            }
            let epoch = self.shared.ledger.epoch().await?;
            self.shared.epoch.fetch_max(epoch, Ordering::SeqCst);
            match self.submit_once(run.clone(), effects.clone()).await {
                // An executor has taken over in between.
                Err(CommitError::Stale) if self.shared.ledger.epoch().await? > epoch => {}
                result => return result,
            }
        }
    }

    async fn submit_once(&self, run: Run, effects: Vec<S::Effect>) -> Result<Arc<Run>, CommitError> {
        let id = run.operation.id;
        let (answer, answered) = oneshot::channel();
        let driver = Box::new(Driver::new(self.shared.clone(), run));
        if !spawn(&self.shared, &self.tasks, id, Start::Submit { driver, effects, answer }) {
            return Err(CommitError::Unavailable(
                "the executor stops, or the operation has been submitted already".to_owned(),
            ));
        }
        answered.await.unwrap_or_else(|_| Err(cut_off()))
    }

    /// Commits a signal with `effects` and wakes its operation. False when the operation does not exist.
    /// Dropping the future does not cancel the commit.
    pub async fn signal(
        &self,
        id: OperationId,
        signal: Signal,
        effects: Vec<S::Effect>,
    ) -> Result<bool, CommitError> {
        let (answer, answered) = oneshot::channel();
        let (shared, weak, busy) =
            (self.shared.clone(), Arc::downgrade(&self.tasks), self.shared.clock.busy());
        self.background.spawn(async move {
            let found = shared.ledger.signal(id, signal, effects).await;
            // After an error the signal may still have been committed.
            if let (true, Some(tasks)) = (!matches!(found, Ok(false)), weak.upgrade()) {
                spawn(&shared, &tasks, id, Start::Load);
            }
            // The caller may have been dropped.
            let _ = answer.send(found);
            drop(busy);
        });
        answered.await.unwrap_or_else(|_| Err(cut_off()))
    }

    /// Wakes the operations that wait for this provider, which works again. Returns their number.
    pub async fn wake(&self, provider: &str) -> Result<usize, CommitError> {
        let waiting = self.shared.waiting.on(provider);
        let (by, at) = (provider.to_owned(), self.shared.clock.now());
        let kind = SignalKind::Wake { provider: provider.to_owned() };
        let signals = waiting.iter().map(|id| {
            let (kind, by) = (kind.clone(), by.clone());
            self.signal(*id, Signal { id: SignalId::new(), kind, by, at }, Vec::new())
        });
        for woken in futures::future::join_all(signals).await {
            woken?;
        }
        Ok(waiting.len())
    }

    /// Number of operations that wait for this provider.
    pub fn waiting_for(&self, provider: &str) -> usize {
        self.shared.waiting.on(provider).len()
    }

    /// Wakes an operation, which reads its signals and timers. Without any it becomes idle again.
    pub fn hint(&self, id: OperationId) {
        spawn(&self.shared, &self.tasks, id, Start::Load);
    }

    /// The committed changes of this operation from now on.
    pub fn follow(&self, id: OperationId) -> Changes {
        self.shared.followers.follow(id)
    }

    /// Number of active operations, and of timers.
    pub fn load(&self) -> (usize, usize) {
        (self.shared.slots.lock().len(), self.shared.timers.lock().len())
    }

    /// Starts no attempt any more, waits for running ones for at most the grace period, and stops.
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
        let clock = &self.shared.clock;
        tokio::select! {
            biased;
            () = emptied => {}
            () = clock.sleep_until(clock.now() + self.shared.grace) => tracing::warn!(
                "attempts still running after the grace period; cancelled, the next start repeats them"
            ),
        }
        for tasks in [&self.tasks, &self.background] {
            let mut tasks = std::mem::take(&mut *tasks.0.lock());
            tasks.shutdown().await;
        }
    }
}

fn cut_off() -> CommitError {
    CommitError::Unavailable("the executor has stopped".to_owned())
}

/// How a task gets its operation.
enum Start<S: Steps> {
    /// From the ledger.
    Load,
    /// A new operation, to be committed with these effects; `answer` goes to the caller of `submit`.
    Submit {
        driver: Box<Driver<S>>,
        effects: Vec<S::Effect>,
        answer: oneshot::Sender<Result<Arc<Run>, CommitError>>,
    },
    /// A child that its parent has just committed.
    Child(Box<Driver<S>>),
}

/// Guard of an operation's slot. Dropping it frees the slot.
struct SlotGuard<S: Steps> {
    shared: Arc<Shared<S>>,
    id: OperationId,
    slot: Arc<Slot>,
}

impl<S: Steps> SlotGuard<S> {
    /// Frees the slot unless it has a new hint; true when it is free. Hints are set under the same lock.
    fn release(&self) -> bool {
        let mut slots = self.shared.slots.lock();
        let wanted = self.slot.hinted.load(Ordering::SeqCst) && !self.shared.stopping.load(Ordering::SeqCst);
        if !wanted {
            slots.remove(&self.id);
        }
        !wanted
    }
}

impl<S: Steps> Drop for SlotGuard<S> {
    fn drop(&mut self) {
        let mut slots = self.shared.slots.lock();
        if slots.get(&self.id).is_some_and(|slot| Arc::ptr_eq(slot, &self.slot)) {
            slots.remove(&self.id);
        }
        drop(slots);
        self.shared.emptied.notify_waiters();
    }
}

/// Starts a task for the operation, or wakes the one that it has. False when no task was started: it has one,
/// or the executor stops or is a standby.
fn spawn<S: Steps>(shared: &Arc<Shared<S>>, tasks: &Arc<Tasks>, id: OperationId, start: Start<S>) -> bool {
    let guard = {
        let mut slots = shared.slots.lock();
        let accepted = shared.running.load(Ordering::SeqCst) || matches!(start, Start::Submit { .. });
        if !accepted || shared.stopping.load(Ordering::SeqCst) {
            return false;
        }
        if let Some(slot) = slots.get(&id) {
            slot.hinted.store(true, Ordering::SeqCst);
            slot.wake.notify_one();
            return false;
        }
        let slot = Arc::new(Slot::default());
        slots.insert(id, slot.clone());
        SlotGuard { shared: shared.clone(), id, slot }
    };
    tasks.spawn(work(guard, Arc::downgrade(tasks), start, shared.clock.busy()));
    true
}

/// A task: runs one operation until it is idle.
async fn work<S: Steps>(guard: SlotGuard<S>, tasks: Weak<Tasks>, start: Start<S>, mut busy: Busy) {
    let SlotGuard { shared, id, slot } = &guard;
    let running = || shared.running.load(Ordering::SeqCst);
    if !running() && !matches!(start, Start::Submit { .. }) {
        return;
    }
    let wake = |woken: Woken| {
        let Some(tasks) = tasks.upgrade() else { return };
        match woken {
            Woken::Child(run) => {
                let id = run.operation.id;
                spawn(shared, &tasks, id, Start::Child(Box::new(Driver::child(shared.clone(), *run))));
            }
            Woken::Relative(id) => {
                spawn(shared, &tasks, id, Start::Load);
            }
        }
    };
    // True when the last commit got no answer.
    let mut in_doubt = false;
    let (mut driver, mut child) = (None, None);
    match start {
        Start::Load => {}
        Start::Child(made) => child = Some(made),
        Start::Submit { driver: mut new, effects, answer } => {
            let submitted = new.submit(effects).await.map(|()| new.snapshot());
            in_doubt = matches!(submitted, Err(CommitError::Unavailable(_)));
            let refused = submitted.is_err() && !in_doubt;
            let begins = new.begins();
            new.take_woken().into_iter().for_each(wake);
            driver = (submitted.is_ok() && begins).then_some(new);
            // The caller may have been dropped.
            let _ = answer.send(submitted);
            // A standby leaves the operation to the leader, unless it has become the leader in the meantime.
            if (refused || !begins && !running()) && guard.release() {
                return;
            }
        }
    }
    let _permit = match shared.permits.try_acquire() {
        Ok(permit) => permit,
        Err(_) => {
            drop(busy.take());
            let Ok(permit) = shared.permits.acquire().await else { return };
            busy = shared.clock.busy();
            permit
        }
    };
    let mut backoff = Backoff::default();
    loop {
        let next = match &mut driver {
            Some(driver) => driver.drive(slot, busy.take(), wake).await,
            None if shared.stopping.load(Ordering::SeqCst) => Next::Rest,
            None => {
                let loaded = match child.take() {
                    Some(child) => Ok(Some((child, Vec::new()))),
                    None => {
                        slot.hinted.store(false, Ordering::SeqCst);
                        Driver::load(shared, *id).await
                    }
                };
                match loaded {
                    Ok(Some((mut loaded, signals))) => {
                        if std::mem::take(&mut in_doubt) {
                            loaded.wake_relatives();
                        }
                        driver.insert(loaded).resume(slot, &signals, busy.take(), wake).await
                    }
                    // It does not exist, or a newer executor owns it.
                    Ok(None) => Next::Rest,
                    Err(why) => Next::Reload(why),
                }
            }
        };
        busy = shared.clock.busy();
        match next {
            Next::Rest if guard.release() => return shared.ledger_works(),
            Next::Rest => {
                shared.ledger_works();
                backoff = Backoff::default();
            }
            Next::Reload(why) => {
                driver = None;
                in_doubt |= matches!(why, CommitError::Unavailable(_));
                shared.ledger_failed(*id, &why);
                drop(busy.take());
                backoff.wait(&*shared.clock).await;
                busy = shared.clock.busy();
            }
        }
    }
}

/// Delays before the ledger is read again after an error: 50 ms, doubled up to 5 s.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(50))
    }
}

impl Backoff {
    async fn wait(&mut self, clock: &dyn Clock) {
        clock.sleep_until(clock.now() + self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(5));
    }
}

impl<S: Steps> Shared<S> {
    /// Logs a failed call of the ledger: an outage once, whatever the number of operations and attempts.
    fn ledger_failed(&self, operation: OperationId, why: &CommitError) {
        match why {
            CommitError::Unavailable(_) if self.ledger_down.swap(true, Ordering::SeqCst) => {
                tracing::debug!(%operation, "reading the ledger again: {why}");
            }
            CommitError::Unavailable(_) => {
                tracing::warn!(%operation, "operations wait for the ledger: {why}");
            }
            _ => tracing::warn!(%operation, "reading the ledger again: {why}"),
        }
    }

    fn ledger_works(&self) {
        let continues = self.running.load(Ordering::SeqCst) && !self.stopping.load(Ordering::SeqCst);
        if continues && self.ledger_down.swap(false, Ordering::SeqCst) {
            tracing::info!("the ledger works again; operations continue");
        }
    }

    /// Wakes the operation at `at`.
    pub fn set_timer(&self, at: Timestamp, id: OperationId) {
        // The timer before its guard: `watch_timers` drops the guards that it takes.
        self.timers.lock().insert((at, id));
        self.unseen.lock().push(self.clock.busy());
        self.timer_set.notify_one();
    }
}

async fn watch_timers<S: Steps>(shared: Arc<Shared<S>>, tasks: Weak<Tasks>) {
    loop {
        let unseen = std::mem::take(&mut *shared.unseen.lock());
        let next = shared.timers.lock().first().map(|(at, _)| *at);
        let Some(at) = next else {
            drop(unseen);
            shared.timer_set.notified().await;
            continue;
        };
        let mut sleep = shared.clock.sleep_until(at);
        if futures::poll!(&mut sleep).is_pending() {
            drop(unseen);
            tokio::select! {
                () = sleep => {}
                () = shared.timer_set.notified() => continue,
            }
        }
        let _busy = shared.clock.busy();
        let now = shared.clock.now();
        loop {
            let due = {
                let mut timers = shared.timers.lock();
                timers.first().is_some_and(|(at, _)| *at <= now).then(|| timers.pop_first()).flatten()
            };
            let (Some((_, id)), Some(tasks)) = (due, tasks.upgrade()) else { break };
            spawn(&shared, &tasks, id, Start::Load);
        }
    }
}
