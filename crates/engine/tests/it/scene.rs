//! A test's process: an executor with a ledger in memory, a virtual clock and scripted steps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tenantry_engine::memory::MemoryLedger;
use tenantry_engine::{
    Clock, Commit, CommitError, Executor, ExecutorConfig, Ledger, Run, Signal, SignalKind, Step, Waiting,
};
use tenantry_model::id::OperationId;
use tenantry_testkit::crash_ledger::{CrashLedger, Faults};
use tenantry_testkit::virtual_clock::VirtualClock;

use crate::plan::{self, at, signal};
use crate::world::{Effect, Scripted, World};

/// A ledger with taken names: an effect that claims one of them is a conflict.
pub struct Guarded {
    inner: Arc<MemoryLedger<Effect>>,
    taken: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Ledger<Effect> for Guarded {
    async fn begin_epoch(&self) -> Result<i64, CommitError> {
        self.inner.begin_epoch().await
    }
    async fn epoch(&self) -> Result<i64, CommitError> {
        self.inner.epoch().await
    }
    async fn load(&self, id: OperationId) -> Result<Option<(Run, Vec<Signal>)>, CommitError> {
        self.inner.load(id).await
    }
    async fn commit(&self, commit: Commit<Effect>) -> Result<(), CommitError> {
        let taken =
            |effect: &Effect| matches!(effect, Effect::Claim(name) if self.taken.lock().contains(name));
        if commit.effects.iter().any(taken) {
            return Err(CommitError::Conflict { table: "names".to_owned() });
        }
        self.inner.commit(commit).await
    }
    async fn unfinished(&self) -> Result<Vec<Waiting>, CommitError> {
        self.inner.unfinished().await
    }
    async fn signal(
        &self,
        id: OperationId,
        signal: Signal,
        effects: Vec<Effect>,
    ) -> Result<bool, CommitError> {
        self.inner.signal(id, signal, effects).await
    }
    async fn note(&self, id: OperationId, epoch: i64, step: &Step) -> Result<(), CommitError> {
        self.inner.note(id, epoch, step).await
    }
}

/// One process and its outside state.
pub struct Scene {
    pub clock: VirtualClock,
    pub world: Arc<World>,
    pub guarded: Arc<Guarded>,
    pub ledger: Arc<CrashLedger<Effect>>,
    pub executor: Executor<Scripted>,
}

impl Scene {
    pub async fn new() -> Self {
        Self::with(ExecutorConfig::default(), Faults::new()).await
    }

    pub async fn with(config: ExecutorConfig, faults: Faults) -> Self {
        let clock = VirtualClock::start();
        let world = World::new(clock.clone());
        let guarded = Arc::new(Guarded { inner: world.ledger.clone(), taken: Mutex::default() });
        let ledger = Arc::new(CrashLedger::new(guarded.clone(), faults));
        let (executor, ledger) = start(&world, ledger, config).await;
        Self { clock, world, guarded, ledger, executor }
    }

    /// Another process that takes over the ledger while this one continues.
    pub async fn next(&self) -> Self {
        let ledger = Arc::new(CrashLedger::new(self.guarded.clone(), Faults::new()));
        let (executor, ledger) = start(&self.world, ledger, ExecutorConfig::default()).await;
        let (clock, world, guarded) = (self.clock.clone(), self.world.clone(), self.guarded.clone());
        Self { clock, world, guarded, ledger, executor }
    }

    /// A standby of this process.
    pub fn standing_by(&self) -> Self {
        let ledger = Arc::new(CrashLedger::new(self.guarded.clone(), Faults::new()));
        let (clock, world, guarded) = (self.clock.clone(), self.world.clone(), self.guarded.clone());
        let steps = Arc::new(Scripted(world.clone()));
        let config = ExecutorConfig::default();
        let executor = Executor::standing_by(ledger.clone(), steps, config, Arc::new(clock.clone()));
        Self { clock, world, guarded, ledger, executor }
    }

    /// The process ends, and the next one starts.
    pub async fn restart(self) -> Self {
        let Self { clock, world, guarded, executor, .. } = self;
        drop(executor);
        let ledger = Arc::new(CrashLedger::new(guarded.clone(), Faults::new()));
        let (executor, ledger) = start(&world, ledger, ExecutorConfig::default()).await;
        Self { clock, world, guarded, ledger, executor }
    }

    pub async fn submit(&self, steps: impl IntoIterator<Item = Step>) -> OperationId {
        let run = plan::run(steps);
        let id = run.operation.id;
        self.executor.submit(run, Vec::new()).await.unwrap();
        id
    }

    /// Sends a signal of an operator and runs what follows without time.
    pub async fn ask(&self, id: OperationId, kind: SignalKind) {
        assert!(self.executor.signal(id, signal(kind), Vec::new()).await.unwrap());
        self.settle().await;
    }

    /// Waits until that many seconds after the start, and runs what is due then.
    pub async fn until(&self, seconds: u64) {
        self.clock.sleep_until(at(seconds)).await;
        self.settle().await;
    }

    /// Runs everything that needs no time.
    pub async fn settle(&self) {
        let _busy = self.clock.busy();
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until no task and no timer is left.
    pub async fn quiet(&self) {
        assert!(self.clock.quiet(at(10 * 365 * 86_400)).await, "never quiet: {:?}", self.world.ledger.runs());
    }

    pub fn run(&self, id: OperationId) -> Run {
        self.world.ledger.runs().into_iter().find(|run| run.operation.id == id).unwrap()
    }

    /// Operation and steps in one line: `running: a=done b=running`.
    pub fn line(&self, id: OperationId) -> String {
        let run = self.run(id);
        let steps = run.steps.iter().map(|s| format!(" {}={}", s.key, s.state.as_str()));
        format!("{}:{}", run.operation.state.as_str(), steps.collect::<String>())
    }

    /// The child operation of a detached step.
    pub fn child(&self, parent: OperationId, key: &str) -> OperationId {
        self.run(parent).step(key).unwrap().child.unwrap()
    }

    /// A successor raises the epoch and does nothing else yet.
    pub async fn raise_epoch(&self) {
        self.world.ledger.begin_epoch().await.unwrap();
    }

    /// Number of an operation's pending signals in the ledger.
    pub async fn pending_signals(&self, id: OperationId) -> usize {
        self.world.ledger.load(id).await.unwrap().map_or(0, |(_, signals)| signals.len())
    }

    pub fn take(&self, name: &str) {
        self.guarded.taken.lock().insert(name.to_owned());
    }
    pub fn free(&self, name: &str) {
        self.guarded.taken.lock().remove(name);
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> u64 {
        self.clock.now().since(at(0)).as_secs()
    }
}

async fn start(
    world: &Arc<World>,
    ledger: Arc<CrashLedger<Effect>>,
    config: ExecutorConfig,
) -> (Executor<Scripted>, Arc<CrashLedger<Effect>>) {
    let (steps, clock) = (Arc::new(Scripted(world.clone())), Arc::new(world.clock.clone()));
    let executor = Executor::start_with_clock(ledger.clone(), steps, config, clock).await.unwrap();
    (executor, ledger)
}

/// A configuration with this number of active operations.
pub fn active(max_active: usize) -> ExecutorConfig {
    ExecutorConfig { max_active, ..ExecutorConfig::default() }
}

/// A duration in seconds.
pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
