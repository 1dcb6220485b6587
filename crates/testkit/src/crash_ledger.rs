//! Crashes at every commit point: a ledger that lets its process die (or fails it) at chosen calls, and a harness that
//! plays the same story with every such call, one process after another, until nothing is unfinished.
//!
//! Generic over the code behind the steps and the ledger. A process dies by being dropped: no further write, no
//! further poll. What must hold afterwards, the stage says.

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

/// What goes wrong at one call of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies; the ledger has not seen the call.
    DieBefore,
    /// The process dies; the ledger has done what was asked.
    DieAfter,
    /// The ledger does not answer in time; it has not seen the call.
    FailBefore,
    /// The ledger does not answer in time; it has done what was asked.
    FailAfter,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::DieBefore, Self::DieAfter, Self::FailBefore, Self::FailAfter];
}

/// Faults by the number of the call, counted from 1 over all calls of one process.
pub type Faults = BTreeMap<u64, Fault>;

/// A ledger as one process sees it, with faults. After its death no call ever answers.
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
    /// Operations read so far.
    pub fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }
    /// Commits asked for so far.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }
    /// Completes when the process must die.
    pub async fn died(&self) {
        // The sender is this very value, so it cannot be gone.
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, CommitError>>) -> Result<T, CommitError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let silence = || CommitError::Unavailable(format!("no answer to call {number}"));
        let fault = self.faults.get(&number).copied();
        if *self.dead.borrow() {
            return std::future::pending().await;
        }
        // No ledger answers without a pause: whatever else is ready gets its turn before the call and after it.
        tokio::task::yield_now().await;
        let result = self.fail(fault, silence, call).await;
        tokio::task::yield_now().await;
        result
    }

    async fn fail<T>(
        &self,
        fault: Option<Fault>,
        silence: impl Fn() -> CommitError,
        call: impl Future<Output = Result<T, CommitError>>,
    ) -> Result<T, CommitError> {
        match fault {
            None => call.await,
            Some(Fault::FailBefore) => Err(silence()),
            Some(Fault::FailAfter) => call.await.and_then(|_| Err(silence())),
            Some(Fault::DieBefore) => self.die().await,
            Some(Fault::DieAfter) => {
                // Whether the ledger accepted it or not: nobody is left to hear.
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

/// A world in which one process after another runs the same operations.
#[async_trait]
pub trait Stage: Send + Sync {
    /// The code behind the steps.
    type Steps: Steps;

    /// What survives every process.
    fn ledger(&self) -> Arc<dyn Ledger<<Self::Steps as Steps>::Effect>>;

    /// The code behind the steps, as a new process makes it.
    fn steps(&self) -> Arc<Self::Steps>;

    /// What people ask at the beginning. Asked again, of the same process or the next one, until it has answered Ok
    /// once: a client that got no answer does the same. So it must be safe to repeat.
    async fn begin(&self, executor: &Executor<Self::Steps>) -> Result<(), CommitError>;

    /// What people do when nothing moves by itself and these are unfinished (approve, retry …). False: nothing.
    async fn attend(
        &self,
        _executor: &Executor<Self::Steps>,
        _unfinished: &[Waiting],
    ) -> Result<bool, CommitError> {
        Ok(false)
    }

    /// What must be true when everything is finished; the error says what is not.
    async fn check(&self) -> Result<(), String>;
}

/// Plays one story: a process for each set of faults, and a last one without. Returns for each whether it got as
/// far as all of its faults; the error says what went wrong.
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

/// The life of one process, until everything is finished.
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
                Err(refused) => return Err(format!("what was asked was refused: {refused}")),
            }
        }
        if !clock.quiet(limit).await {
            return Err("it goes on for ever".to_owned());
        }
        // Asked behind the faults: this is the tester's question, not the process's.
        let unfinished = stage.ledger().unfinished().await.map_err(|why| why.to_string())?;
        if unfinished.is_empty() && *begun {
            return Ok(());
        }
        match stage.attend(&executor, &unfinished).await {
            Ok(true) | Err(CommitError::Unavailable(_)) => {}
            Ok(false) if !*begun => {}
            Ok(false) => return Err(format!("nothing moves any more, and unfinished are {unfinished:?}")),
            Err(refused) => return Err(format!("what a person asked was refused: {refused}")),
        }
    }
}

/// Plays the story on a fresh stage with each of `faults` at each call of the ledger, and with `twice` also with every
/// death at each call of the process that recovers from it. Returns the number of cases; the error names the case.
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
