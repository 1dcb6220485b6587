//! The local executor: carries out what `decide` says, in this process, with one task per operation that is doing
//! something. An operation that only waits has no task: a row in the ledger and an entry among the timers.
//!
//! Of the executors on one ledger one runs. The others stand by: they take new operations and signals, which is one
//! commit each, and leave the rest to the one that runs, whom somebody must tell (`heard`).

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_model::{Timestamp, id::OperationId};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::clock::{Busy, Clock, SystemClock};
use crate::driver::{Driver, Next, Woken};
use crate::follow::{Changes, Followers};
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
    /// Operations that run here.
    tasks: Arc<Tasks>,
    /// What goes on when another one runs: signals on their way, followers to be told.
    errands: Arc<Tasks>,
}

impl<S: Steps> Clone for Executor<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), tasks: self.tasks.clone(), errands: self.errands.clone() }
    }
}

/// What the tasks share.
pub(crate) struct Shared<S: Steps> {
    pub ledger: Arc<dyn Ledger<S::Effect>>,
    pub steps: Arc<S>,
    pub clock: Arc<dyn Clock>,
    pub followers: Arc<Followers>,
    pub epoch: AtomicI64,
    /// Whether this is the executor that runs.
    pub running: AtomicBool,
    pub stopping: AtomicBool,
    slots: Mutex<HashMap<OperationId, Arc<Slot>>>,
    emptied: Notify,
    timers: Mutex<BTreeSet<(Timestamp, OperationId)>>,
    /// Held for timers that `watch_timers` has not seen yet, so that no virtual time passes them by.
    unseen: Mutex<Vec<Busy>>,
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
        let executor = Self::standing_by(ledger, steps, config, clock);
        let _busy = executor.shared.clock.busy();
        executor.take_over().await?;
        executor.look().await?;
        Ok(executor)
    }

    /// Stands by on the ledger of an executor that runs.
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
            turns: Semaphore::new(config.max_active.max(1)),
            grace: config.grace,
            clock,
        });
        let [tasks, errands] = [(); 2].map(|()| Arc::new(Tasks(Mutex::default())));
        Self { shared, tasks, errands }
    }

    /// Takes over the ledger: every earlier executor's commits are refused from here on. What waits in it is found by
    /// [`Self::look`].
    pub async fn take_over(&self) -> Result<(), CommitError> {
        let shared = &self.shared;
        shared.epoch.fetch_max(shared.ledger.begin_epoch().await?, Ordering::SeqCst);
        shared.running.store(true, Ordering::SeqCst);
        self.tasks.spawn(watch_timers(shared.clone(), Arc::downgrade(&self.tasks)));
        Ok(())
    }

    /// The epoch that its commits carry.
    pub fn epoch(&self) -> i64 {
        self.shared.epoch.load(Ordering::SeqCst)
    }

    /// Reads the ledger for whatever wants to go on: after a take-over, or when hints may have been lost.
    pub async fn look(&self) -> Result<(), CommitError> {
        let unfinished = self.shared.ledger.unfinished().await?;
        let now = self.shared.clock.now();
        for waiting in unfinished {
            match waiting.wake_at {
                _ if !waiting.idle || waiting.signalled => self.hint(waiting.id),
                Some(at) if at <= now => self.hint(waiting.id),
                Some(at) => self.shared.set_timer(at, waiting.id),
                None => {}
            }
        }
        Ok(())
    }

    /// Drops everything where it is, as another executor runs now or soon.
    pub async fn stand_by(&self) {
        self.shared.running.store(false, Ordering::SeqCst);
        let mut tasks = std::mem::take(&mut *self.tasks.0.lock());
        tasks.shutdown().await;
        self.shared.timers.lock().clear();
        self.shared.unseen.lock().clear();
    }

    /// Whether this is the executor that runs.
    pub fn is_running(&self) -> bool {
        self.shared.running.load(Ordering::SeqCst)
    }

    /// Says that another executor on this ledger has committed something of an operation.
    pub fn heard(&self, id: OperationId) {
        if self.is_running() {
            return self.hint(id);
        }
        if !self.shared.followers.any(id) {
            return;
        }
        let shared = self.shared.clone();
        self.errands.spawn(async move {
            match shared.ledger.load(id).await {
                Ok(Some((run, _))) => shared.followers.tell(&Arc::new(run)),
                Ok(None) => {}
                Err(why) => tracing::debug!(operation = %id, "its followers are not told: {why}"),
            }
        });
    }

    /// The same of every operation that somebody follows here, when what was said may have been lost.
    pub fn heard_of_all(&self) {
        self.shared.followers.all().into_iter().for_each(|id| self.heard(id));
    }

    /// Begins a new operation: decides, runs the transactional steps, and commits all of it with `effects` in one
    /// transaction. When this returns, the operation cannot be lost. `Unavailable` leaves open whether it was begun.
    /// A caller that is dropped meanwhile takes nothing back.
    pub async fn submit(&self, run: Run, effects: Vec<S::Effect>) -> Result<Arc<Run>, CommitError> {
        loop {
            if self.is_running() {
                return self.submit_once(run, effects).await;
            }
            let epoch = self.shared.ledger.epoch().await?;
            self.shared.epoch.fetch_max(epoch, Ordering::SeqCst);
            match self.submit_once(run.clone(), effects.clone()).await {
                // Another one, or this one, has taken over in between.
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
            return Err(CommitError::Unavailable("it stops, or has been asked the same already".to_owned()));
        }
        answered.await.unwrap_or_else(|_| Err(cut_off()))
    }

    /// Commits a signal with `effects` and wakes its operation. False: there is no such operation. A caller that is
    /// dropped meanwhile takes nothing back.
    pub async fn signal(
        &self,
        id: OperationId,
        signal: Signal,
        effects: Vec<S::Effect>,
    ) -> Result<bool, CommitError> {
        let (answer, answered) = oneshot::channel();
        let (shared, weak, busy) =
            (self.shared.clone(), Arc::downgrade(&self.tasks), self.shared.clock.busy());
        self.errands.spawn(async move {
            let found = shared.ledger.signal(id, signal, effects).await;
            // Without an answer it may stand in the ledger all the same.
            if let (true, Some(tasks)) = (!matches!(found, Ok(false)), weak.upgrade()) {
                spawn(&shared, &tasks, id, Start::Load);
            }
            // Nobody waiting is fine.
            let _ = answer.send(found);
            drop(busy);
        });
        answered.await.unwrap_or_else(|_| Err(cut_off()))
    }

    /// Says that there may be something to do for an operation. Harmless when there is not.
    pub fn hint(&self, id: OperationId) {
        spawn(&self.shared, &self.tasks, id, Start::Load);
    }

    /// Every committed change of this operation from now on.
    pub fn follow(&self, id: OperationId) -> Changes {
        self.shared.followers.follow(id)
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
        let clock = &self.shared.clock;
        tokio::select! {
            biased;
            () = emptied => {}
            () = clock.sleep_until(clock.now() + self.shared.grace) => tracing::warn!(
                "attempts still run after the grace period; they are cut off and begun again at the next start"
            ),
        }
        for tasks in [&self.tasks, &self.errands] {
            let mut tasks = std::mem::take(&mut *tasks.0.lock());
            tasks.shutdown().await;
        }
    }
}

fn cut_off() -> CommitError {
    CommitError::Unavailable("the executor has stopped".to_owned())
}

/// What a task begins with.
enum Start<S: Steps> {
    /// What stands in the ledger.
    Load,
    /// A new operation, to be committed first, with these effects; the answer is for whoever submitted it.
    Submit {
        driver: Box<Driver<S>>,
        effects: Vec<S::Effect>,
        answer: oneshot::Sender<Result<Arc<Run>, CommitError>>,
    },
    /// A child as its parent has just committed it.
    Child(Box<Driver<S>>),
}

/// The slot that a task holds. However the task ends, the slot is free again.
struct Place<S: Steps> {
    shared: Arc<Shared<S>>,
    id: OperationId,
    slot: Arc<Slot>,
}

impl<S: Steps> Place<S> {
    /// Gives the slot back, unless a hint has come meanwhile: both happen under the same lock.
    fn leave(&self) -> bool {
        let mut slots = self.shared.slots.lock();
        let wanted = self.slot.hinted.load(Ordering::SeqCst) && !self.shared.stopping.load(Ordering::SeqCst);
        if !wanted {
            slots.remove(&self.id);
        }
        !wanted
    }
}

impl<S: Steps> Drop for Place<S> {
    fn drop(&mut self) {
        let mut slots = self.shared.slots.lock();
        if slots.get(&self.id).is_some_and(|slot| Arc::ptr_eq(slot, &self.slot)) {
            slots.remove(&self.id);
        }
        drop(slots);
        self.shared.emptied.notify_waiters();
    }
}

/// Gives the operation a task, or tells the one it has. False: a new one was not taken, because there is a task for it
/// already, or the executor stops, or stands by.
fn spawn<S: Steps>(shared: &Arc<Shared<S>>, tasks: &Arc<Tasks>, id: OperationId, start: Start<S>) -> bool {
    let place = {
        let mut slots = shared.slots.lock();
        let ours = shared.running.load(Ordering::SeqCst) || matches!(start, Start::Submit { .. });
        if !ours || shared.stopping.load(Ordering::SeqCst) {
            return false;
        }
        if let Some(slot) = slots.get(&id) {
            slot.hinted.store(true, Ordering::SeqCst);
            slot.wake.notify_one();
            return false;
        }
        let slot = Arc::new(Slot::default());
        slots.insert(id, slot.clone());
        Place { shared: shared.clone(), id, slot }
    };
    tasks.spawn(work(place, Arc::downgrade(tasks), start, shared.clock.busy()));
    true
}

/// The life of a task: one operation from here until it only waits.
async fn work<S: Steps>(place: Place<S>, tasks: Weak<Tasks>, start: Start<S>, mut busy: Busy) {
    let Place { shared, id, slot } = &place;
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
    // Whether the last commit got no answer.
    let mut in_doubt = false;
    let (mut driver, mut child) = (None, None);
    match start {
        Start::Load => {}
        Start::Child(made) => child = Some(made),
        Start::Submit { driver: mut new, effects, answer } => {
            let submitted = new.submit(effects).await.map(|()| new.snapshot());
            in_doubt = matches!(submitted, Err(CommitError::Unavailable(_)));
            let refused = submitted.is_err() && !in_doubt;
            let ours = new.begins();
            new.take_woken().into_iter().for_each(wake);
            driver = (submitted.is_ok() && ours).then_some(new);
            // Nobody waiting is fine.
            let _ = answer.send(submitted);
            // What was begun for another one is ours, if we have taken over meanwhile.
            if (refused || !ours && !running()) && place.leave() {
                return;
            }
        }
    }
    let _turn = match shared.turns.try_acquire() {
        Ok(turn) => turn,
        Err(_) => {
            drop(busy.take());
            let Ok(turn) = shared.turns.acquire().await else { return };
            busy = shared.clock.busy();
            turn
        }
    };
    let mut patience = Patience::default();
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
                    // Unknown, or owned by a newer executor: not ours to touch.
                    Ok(None) => Next::Rest,
                    Err(why) => Next::Reload(why),
                }
            }
        };
        busy = shared.clock.busy();
        match next {
            Next::Rest if place.leave() => return,
            Next::Rest => patience = Patience::default(),
            Next::Reload(why) => {
                driver = None;
                in_doubt |= matches!(why, CommitError::Unavailable(_));
                tracing::warn!(operation = %id, "the ledger is read again: {why}");
                drop(busy.take());
                patience.wait(&*shared.clock).await;
                busy = shared.clock.busy();
            }
        }
    }
}

/// Delays before a ledger that refused or did not answer is asked again: doubling, to a limit.
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
        // The timer first: whoever takes the token finds it.
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
