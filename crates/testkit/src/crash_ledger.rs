//! Crash tests: a ledger that crashes its process or fails at chosen calls, and a harness that repeats a
//! scenario with a fault at every call, one process after another, until every operation is final. A process
//! crashes by being dropped. The scenario ([`Stage`]) supplies ledger, steps and the final check.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tenantry_engine::{
    Clock, Commit, CommitError, Executor, ExecutorConfig, Ledger, Run, Signal, Step, Steps, Waiting,
};
use tenantry_model::{Timestamp, id::OperationId};
use tokio::sync::watch;

use crate::virtual_clock::VirtualClock;

/// A fault at one call of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process crashes before the call.
    DieBefore,
    /// The process crashes after the call.
    DieAfter,
    /// The ledger does not answer, and the call has no effect.
    FailBefore,
    /// The ledger does not answer, and the call takes effect.
    FailAfter,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 4] = [Self::DieBefore, Self::DieAfter, Self::FailBefore, Self::FailAfter];
}

/// Faults by number of the call, counted from 1 in one process.
pub type Faults = BTreeMap<u64, Fault>;

/// A ledger with faults, for one process. After a crash no call returns.
pub struct CrashLedger<E> {
    inner: Arc<dyn Ledger<E>>,
    faults: Faults,
    calls: AtomicU64,
    loads: AtomicU64,
    commits: AtomicU64,
    dead: watch::Sender<bool>,
}

impl<E: Send + Sync + 'static> CrashLedger<E> {
    /// The ledger `inner` with these faults.
    pub fn new(inner: Arc<dyn Ledger<E>>, faults: Faults) -> Self {
        let [calls, loads, commits] = [(); 3].map(|()| AtomicU64::new(0));
        Self { inner, faults, calls, loads, commits, dead: watch::Sender::new(false) }
    }
    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
    /// Calls of `load` so far.
    pub fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }
    /// Calls of `commit` so far.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }
    /// Completes when the process must crash.
    pub async fn died(&self) {
        // `self` owns the sender, so the channel is open.
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, CommitError>>) -> Result<T, CommitError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let no_answer = || CommitError::Unavailable(format!("no answer to call {number}"));
        let fault = self.faults.get(&number).copied();
        if *self.dead.borrow() {
            return std::future::pending().await;
        }
        // A real ledger is asynchronous: other ready tasks run before and after the call.
        tokio::task::yield_now().await;
        let result = self.fail(fault, no_answer, call).await;
        tokio::task::yield_now().await;
        result
    }

    async fn fail<T>(
        &self,
        fault: Option<Fault>,
        no_answer: impl Fn() -> CommitError,
        call: impl Future<Output = Result<T, CommitError>>,
    ) -> Result<T, CommitError> {
        match fault {
            None => call.await,
            Some(Fault::FailBefore) => Err(no_answer()),
            Some(Fault::FailAfter) => call.await.and_then(|_| Err(no_answer())),
            Some(Fault::DieBefore) => self.die().await,
            Some(Fault::DieAfter) => {
                // The process crashes, so the result is lost.
                let _ = call.await;
                self.die().await
            }
        }
    }

    async fn die<T>(&self) -> T {
        self.dead.send_replace(true);
        std::future::pending().await
    }
}

#[async_trait]
impl<E: Send + Sync + 'static> Ledger<E> for CrashLedger<E> {
    async fn begin_epoch(&self) -> Result<i64, CommitError> {
        self.call(self.inner.begin_epoch()).await
    }
    async fn epoch(&self) -> Result<i64, CommitError> {
        self.call(self.inner.epoch()).await
    }
    async fn load(&self, id: OperationId) -> Result<Option<(Run, Vec<Signal>)>, CommitError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.call(self.inner.load(id)).await
    }
    async fn commit(&self, commit: Commit<E>) -> Result<(), CommitError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.call(self.inner.commit(commit)).await
    }
    async fn unfinished(&self) -> Result<Vec<Waiting>, CommitError> {
        self.call(self.inner.unfinished()).await
    }
    async fn signal(&self, id: OperationId, signal: Signal, effects: Vec<E>) -> Result<bool, CommitError> {
        self.call(self.inner.signal(id, signal, effects)).await
    }
    async fn note(&self, id: OperationId, epoch: i64, step: &Step) -> Result<(), CommitError> {
        self.call(self.inner.note(id, epoch, step)).await
    }
}

/// A scenario in which one process after another runs the same operations.
#[async_trait]
pub trait Stage: Send + Sync {
    /// The code behind the steps.
    type Steps: Steps;

    /// The ledger, which survives every process.
    fn ledger(&self) -> Arc<dyn Ledger<<Self::Steps as Steps>::Effect>>;

    /// The code behind the steps for a new process.
    fn steps(&self) -> Arc<Self::Steps>;

    /// First requests of clients. Repeated, on the same or the next process, until it returns `Ok`, as a
    /// client does that got no answer. So it must be safe to repeat.
    async fn begin(&self, executor: &Executor<Self::Steps>) -> Result<(), CommitError>;

    /// Signals of operators when unfinished operations only wait (approve, retry …). False when it sent none.
    async fn attend(
        &self,
        _executor: &Executor<Self::Steps>,
        _unfinished: &[Waiting],
    ) -> Result<bool, CommitError> {
        Ok(false)
    }

    /// Checks the final state; the error describes the violation.
    async fn check(&self) -> Result<(), String>;
}

/// Runs one scenario: a process for each set of faults, and a last one without faults. Returns for each
/// process whether it reached all of its faults; the error describes what failed.
pub async fn play<S: Stage>(stage: &S, clock: &VirtualClock, lives: &[Faults]) -> Result<Vec<bool>, String> {
    let limit = clock.now() + Duration::from_secs(10 * 365 * 86_400);
    let mut begun = false;
    let mut reached = Vec::new();
    for faults in lives.iter().chain([&Faults::new()]) {
        let last = faults.keys().last().copied().unwrap_or(0);
        let ledger = Arc::new(CrashLedger::new(stage.ledger(), faults.clone()));
        tokio::select! {
            biased;
            () = ledger.died() => {}
            lived = live(stage, clock, ledger.clone(), limit, &mut begun) => lived?,
        }
        reached.push(ledger.calls() >= last);
    }
    reached.pop();
    stage.check().await?;
    Ok(reached)
}

/// Runs one process until every operation is final.
async fn live<S: Stage>(
    stage: &S,
    clock: &VirtualClock,
    ledger: Arc<CrashLedger<<S::Steps as Steps>::Effect>>,
    limit: Timestamp,
    begun: &mut bool,
) -> Result<(), String> {
    let executor = loop {
        let clock = Arc::new(clock.clone());
        let config = ExecutorConfig::default();
        match Executor::start_with_clock(ledger.clone(), stage.steps(), config, clock).await {
            Ok(executor) => break executor,
            Err(CommitError::Unavailable(_)) => {}
            Err(refused) => return Err(format!("the executor does not start: {refused}")),
        }
    };
    loop {
        if !*begun {
            match stage.begin(&executor).await {
                Ok(()) => *begun = true,
                Err(CommitError::Unavailable(_)) => {}
                Err(refused) => return Err(format!("a request was refused: {refused}")),
            }
        }
        if !clock.quiet(limit).await {
            return Err("the operations never end".to_owned());
        }
        // Without faults: this is a call of the test, not of the process.
        let unfinished = stage.ledger().unfinished().await.map_err(|why| why.to_string())?;
        if unfinished.is_empty() && *begun {
            return Ok(());
        }
        match stage.attend(&executor, &unfinished).await {
            Ok(true) | Err(CommitError::Unavailable(_)) => {}
            Ok(false) if !*begun => {}
            Ok(false) => return Err(format!("stalled with unfinished operations: {unfinished:?}")),
            Err(refused) => return Err(format!("a signal was refused: {refused}")),
        }
    }
}

/// Runs the scenario with each of `faults` at each call of the ledger, each time on a new stage. With `twice`
/// it repeats each crash at each call of the recovering process. Returns the number of cases; the error names
/// the case.
pub async fn everywhere<S: Stage>(
    make: impl AsyncFn(VirtualClock) -> S,
    faults: &[Fault],
    twice: bool,
) -> Result<usize, String> {
    let mut cases = 0;
    for fault in faults {
        for first in 1.. {
            let mut lives = vec![Faults::from([(first, *fault)])];
            let reached = case(&make, &lives, &mut cases).await?;
            if reached != [true] {
                break;
            }
            if twice && matches!(fault, Fault::DieBefore | Fault::DieAfter) {
                for second in 1.. {
                    lives.truncate(1);
                    lives.push(Faults::from([(second, *fault)]));
                    if case(&make, &lives, &mut cases).await? != [true, true] {
                        break;
                    }
                }
            }
        }
    }
    Ok(cases)
}

async fn case<S: Stage>(
    make: &impl AsyncFn(VirtualClock) -> S,
    lives: &[Faults],
    cases: &mut usize,
) -> Result<Vec<bool>, String> {
    *cases += 1;
    let clock = VirtualClock::start();
    let stage = make(clock.clone()).await;
    play(&stage, &clock, lives).await.map_err(|why| format!("with {lives:?}: {why}"))
}
