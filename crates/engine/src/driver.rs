//! Runs one active operation: decide, commit, start attempts, settle, until it is final or idle. The driver
//! is the only writer of its operation in this process. It commits the start of an attempt before the
//! attempt, and its end before the next decision takes effect.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use serde_json::Value;
use tenantry_model::id::{OperationId, SignalId};
use tenantry_model::{Failure, Timestamp};

use crate::clock::Busy;
use crate::decide::{decide, recover, settle};
use crate::executor::{Shared, Slot};
use crate::ledger::{Commit, CommitError};
use crate::operation::{Operation, Run, Step, StepState};
use crate::retry::RetryInputs;
use crate::run::{Attempt, AttemptGuards, Direction, Done, Notes, Steps};
use crate::signal::{Signal, SignalKind};

/// Why a driver stopped.
pub(crate) enum Next {
    /// The operation is idle until a hint or a timer.
    Rest,
    /// The state in memory may differ from the ledger: load it again.
    Reload(CommitError),
}

/// Another operation to wake after a commit.
pub(crate) enum Woken {
    /// A child that the commit created, as in the ledger.
    Child(Box<Run>),
    /// A parent or child that may have a new signal.
    Relative(OperationId),
}

/// A running attempt. Dropping it cancels it.
struct InFlight<E> {
    key: String,
    direction: Direction,
    work: Pin<Box<dyn Future<Output = Ended<E>> + Send>>,
}

/// An attempt that has ended. It keeps its guards, and stops a virtual clock, until it is settled.
struct Ended<E> {
    result: Result<Done<E>, Failure>,
    _guards: AttemptGuards,
    _busy: Busy,
}

/// Changes that one commit contains.
struct Round<E> {
    effects: Vec<E>,
    children: Vec<Run>,
    signals: Vec<(OperationId, SignalKind)>,
    begun: Vec<(String, Direction)>,
}

/// Shortest delay before the retry of a step whose effects conflicted with another transaction.
const CONFLICT_DELAY: Duration = Duration::from_millis(100);

pub(crate) struct Driver<S: Steps> {
    shared: Arc<Shared<S>>,
    /// The run in the ledger; none before the first commit.
    committed: Option<Arc<Run>>,
    /// The run to commit next.
    run: Run,
    /// True when `run` is the committed run after `recover`.
    recovered: bool,
    /// True when this executor starts the attempts; false on a standby.
    begins: bool,
    in_flight: Vec<InFlight<S::Effect>>,
    woken: Vec<Woken>,
}

impl<S: Steps> Driver<S> {
    /// A new operation, not yet in the ledger.
    pub fn new(shared: Arc<Shared<S>>, mut run: Run) -> Self {
        run.operation.version = 0;
        run.operation.epoch = shared.epoch.load(Ordering::SeqCst);
        let begins = shared.running.load(Ordering::SeqCst);
        let (in_flight, woken) = (Vec::new(), Vec::new());
        Self { shared, committed: None, run, recovered: false, begins, in_flight, woken }
    }

    /// A child that its parent's commit created.
    pub fn child(shared: Arc<Shared<S>>, run: Run) -> Self {
        let committed = Some(Arc::new(run.clone()));
        let (in_flight, woken) = (Vec::new(), Vec::new());
        Self { shared, committed, run, recovered: false, begins: true, in_flight, woken }
    }

    /// Loads an operation and its pending signals from the ledger. None when it does not exist or a newer
    /// executor owns it.
    pub async fn load(
        shared: &Arc<Shared<S>>,
        id: OperationId,
    ) -> Result<Option<(Box<Self>, Vec<Signal>)>, CommitError> {
        let epoch = shared.epoch.load(Ordering::SeqCst);
        let Some((run, signals)) =
            shared.ledger.load(id).await?.filter(|(run, _)| run.operation.epoch <= epoch)
        else {
            return Ok(None);
        };
        let committed = Some(Arc::new(run.clone()));
        let (shared, in_flight, woken) = (shared.clone(), Vec::new(), Vec::new());
        let mut driver = Self { shared, committed, run, recovered: true, begins: true, in_flight, woken };
        driver.reset();
        Ok(Some((Box::new(driver), signals)))
    }

    /// Discards changes that are not committed.
    fn reset(&mut self) {
        let Some(committed) = &self.committed else { return };
        self.run = Run::clone(committed);
        if self.recovered {
            // This process runs none of its attempts, so those that the ledger calls running were cut off.
            recover(&mut self.run, self.shared.epoch.load(Ordering::SeqCst), self.shared.clock.now());
        }
    }

    /// True when this executor starts the attempts; otherwise the leader does after the commit.
    pub fn begins(&self) -> bool {
        self.begins
    }

    /// The last committed run.
    pub fn snapshot(&self) -> Arc<Run> {
        self.committed.clone().unwrap_or_else(|| Arc::new(self.run.clone()))
    }

    /// Wakes parent and children, because a commit without an answer may have written signals for them.
    pub fn wake_relatives(&mut self) {
        let run = &self.run;
        let relatives = run.operation.parent.into_iter().chain(run.steps.iter().filter_map(|s| s.child));
        self.woken.extend(relatives.map(Woken::Relative));
    }

    /// Operations that the last commits created or signalled.
    pub fn take_woken(&mut self) -> Vec<Woken> {
        std::mem::take(&mut self.woken)
    }

    /// The first commit of a new operation.
    pub async fn submit(&mut self, effects: Vec<S::Effect>) -> Result<(), CommitError> {
        self.advance(&[], effects, None).await
    }

    /// Continues with an operation that was just loaded or created.
    pub async fn resume(
        &mut self,
        slot: &Slot,
        signals: &[Signal],
        busy: Busy,
        wake: impl Fn(Woken),
    ) -> Next {
        match self.settle_and_advance(Vec::new(), signals).await {
            Ok(()) => self.drive(slot, busy, wake).await,
            Err(why) => Next::Reload(why),
        }
    }

    /// Continues until the operation is final or idle, or the executor stops.
    pub async fn drive(&mut self, slot: &Slot, mut busy: Busy, wake: impl Fn(Woken)) -> Next {
        loop {
            self.take_woken().into_iter().for_each(&wake);
            let operation = &self.run.operation;
            let stopping = self.shared.stopping.load(Ordering::SeqCst);
            let hinted = slot.hinted.load(Ordering::SeqCst) && !stopping;
            if self.in_flight.is_empty()
                && !hinted
                && (operation.idle || operation.state.is_final() || stopping)
            {
                if let Some(at) = operation.wake_at.filter(|_| !operation.state.is_final()) {
                    self.shared.set_timer(at, operation.id);
                }
                return Next::Rest;
            }
            // A stopping executor decides nothing more; the next one handles the timers.
            let wake_at = operation.wake_at.filter(|_| !stopping);
            let mut ended = Vec::new();
            if !hinted {
                let mut first = std::pin::pin!(next_ended(&mut self.in_flight));
                // Once polled, attempts have their own guards.
                match futures::poll!(first.as_mut()) {
                    Poll::Ready(first) => ended.push(first),
                    Poll::Pending => {
                        drop(busy.take());
                        tokio::select! {
                            biased;
                            first = first => ended.push(first),
                            () = slot.wake.notified() => {}
                            () = sleep_until(&self.shared, wake_at) => {}
                        }
                    }
                }
                busy = self.shared.clock.busy();
            }
            let mut signals = Vec::new();
            if slot.hinted.swap(false, Ordering::SeqCst) && !stopping {
                match self.shared.ledger.load(self.run.operation.id).await {
                    Ok(Some((_, waiting))) => signals = waiting,
                    Ok(None) => return Next::Rest,
                    Err(why) => return Next::Reload(why),
                }
            }
            if let Err(why) = self.settle_and_advance(ended, &signals).await {
                return Next::Reload(why);
            }
        }
    }

    /// Records the results of attempts and decides, in one commit. After a conflict it repeats the commit
    /// without starting attempts; after a second one the results with effects count as failed attempts, which
    /// may be retried.
    async fn settle_and_advance(
        &mut self,
        ended: Vec<(String, Direction, Ended<S::Effect>)>,
        signals: &[Signal],
    ) -> Result<(), CommitError> {
        let mut refused: Option<Failure> = None;
        let mut results_hold = true;
        loop {
            let mut effects = Vec::new();
            for (key, direction, Ended { result, .. }) in &ended {
                let result = match (result, &refused) {
                    (Ok(done), Some(conflict)) if !results_hold && !done.effects.is_empty() => {
                        Err(conflict.clone())
                    }
                    (result, _) => result.clone(),
                };
                self.record(key, *direction, result, &mut effects);
            }
            let suspects = results_hold && !effects.is_empty();
            match self.advance(signals, effects, refused.as_ref()).await {
                Err(CommitError::Conflict { table }) if refused.is_none() || suspects => {
                    results_hold = refused.is_none();
                    let what =
                        format!("the registry rejects the change, or has changed in the meantime ({table})");
                    refused = Some(Failure::retryable("conflict", what).after(CONFLICT_DELAY).wrong_answer());
                    self.reset();
                }
                result => return result,
            }
        }
    }

    /// Settles one attempt; its effects join the next commit.
    fn record(
        &mut self,
        key: &str,
        direction: Direction,
        result: Result<Done<S::Effect>, Failure>,
        effects: &mut Vec<S::Effect>,
    ) {
        let result = result.map(|done| {
            effects.extend(done.effects);
            done.output
        });
        let inputs = RetryInputs { retry_for: self.shared.retry_for, jitter: rand::random() };
        settle(&mut self.run, key, direction, result, self.shared.clock.now(), inputs);
    }

    /// Decides, runs the transactional steps, commits, and starts the remaining attempts. With `refused`, no
    /// attempt starts: each fails with that error.
    async fn advance(
        &mut self,
        signals: &[Signal],
        effects: Vec<S::Effect>,
        refused: Option<&Failure>,
    ) -> Result<(), CommitError> {
        let mut round = Round { effects, children: Vec::new(), signals: Vec::new(), begun: Vec::new() };
        let mut waiting = signals;
        // A stopping executor only records the results of its attempts.
        while !self.shared.stopping.load(Ordering::SeqCst) || self.committed.is_none() {
            let before = (!self.begins).then(|| self.run.clone());
            let decision = decide(&mut self.run, std::mem::take(&mut waiting), self.shared.clock.now());
            round.signals.extend(decision.signals);
            for key in &decision.detached {
                if let Some(step) = self.run.step(key) {
                    let Operation { id: parent, epoch, .. } = self.run.operation;
                    let Run { operation, steps } = self.shared.steps.detach(&self.run.operation, step);
                    let id = step.child.unwrap_or(operation.id);
                    let parent = Some(parent);
                    let operation = Operation { id, parent, version: 1, epoch, idle: false, ..operation };
                    round.children.push(Run { operation, steps });
                }
            }
            // A compensation reads committed rows, and this round is not committed yet.
            let in_place = |(key, direction): &(String, Direction)| {
                *direction == Direction::Run
                    && self.run.step(key).is_some_and(|s| self.shared.steps.transactional(s))
            };
            let (inside, outside): (Vec<_>, Vec<_>) =
                decision.start.into_iter().partition(|start| refused.is_some() || in_place(start));
            match before {
                None => round.begun.extend(outside),
                Some(before) => self.leave_to_leader(&before, &outside),
            }
            if inside.is_empty() {
                break;
            }
            for (key, direction) in inside {
                let result = match (refused, self.prepare(&key, direction)) {
                    (Some(failure), _) => Err(failure.clone()),
                    (None, Some(attempt)) => try_once(&self.shared, attempt).await,
                    (None, None) => continue,
                };
                self.record(&key, direction, result, &mut round.effects);
            }
        }
        // An attempt that a later decision of this round revoked does not start.
        let mut begun = std::mem::take(&mut round.begun);
        begun.retain(|(key, direction)| runs(&self.run, key, *direction));
        // Signals that a stopping executor did not apply stay in the ledger.
        let applied = if waiting.is_empty() { signals } else { &[] };
        self.commit(applied.iter().map(|s| s.id).collect(), round, &begun).await?;
        self.recovered = false;
        // Revoked attempts are cancelled before their compensation can start.
        let run = &self.run;
        self.in_flight.retain(|attempt| runs(run, &attempt.key, attempt.direction));
        self.begin(begun);
        Ok(())
    }

    /// Resets the steps in `begun` to their state before the decision: the leader starts them.
    fn leave_to_leader(&mut self, before: &Run, begun: &[(String, Direction)]) {
        for (step, before) in self.run.steps.iter_mut().zip(&before.steps) {
            if begun.iter().any(|(key, _)| *key == step.key) {
                step.clone_from(before);
                // Not idle, so that the leader loads it.
                self.run.operation.idle = false;
            }
        }
    }

    async fn commit(
        &mut self,
        applied: Vec<SignalId>,
        mut round: Round<S::Effect>,
        begun: &[(String, Direction)],
    ) -> Result<(), CommitError> {
        let changed_steps: Vec<String> = match &self.committed {
            None => self.run.steps.iter().map(|s| s.key.clone()).collect(),
            Some(old) => {
                let pairs = self.run.steps.iter().zip(&old.steps);
                pairs.filter(|(new, old)| new != old).map(|(new, _)| new.key.clone()).collect()
            }
        };
        let unchanged = self.committed.as_ref().is_some_and(|old| old.operation == self.run.operation);
        if unchanged && changed_steps.is_empty() && round.effects.is_empty() && applied.is_empty() {
            return Ok(());
        }
        let now = self.shared.clock.now();
        // The version in memory changes only after the commit.
        let mut next = self.run.clone();
        next.operation.version += 1;
        next.operation.updated_at = now;
        for (key, direction) in begun {
            if let Some(step) = next.step(key) {
                round.effects.extend(self.shared.steps.intend(&next, step, *direction, now));
            }
        }
        let before = self.committed.as_ref().map(|run| &run.operation);
        round.effects.extend(self.shared.steps.changed(before, &next, now));
        let signal = |kind| Signal { id: SignalId::new(), kind, by: next.operation.id.to_string(), at: now };
        let signals: Vec<_> = round.signals.into_iter().map(|(to, kind)| (to, signal(kind))).collect();
        let signalled: Vec<_> = signals.iter().map(|(to, _)| Woken::Relative(*to)).collect();
        let children = round.children.iter().map(|child| Woken::Child(Box::new(child.clone())));
        let woken = children.chain(signalled);
        let woken: Vec<Woken> = woken.collect();
        let expected_epoch = before.map_or(next.operation.epoch, |operation| operation.epoch);
        let next = Arc::new(next);
        self.shared
            .ledger
            .commit(Commit {
                run: next.clone(),
                expected_epoch,
                changed_steps,
                applied,
                children: round.children,
                signals,
                effects: round.effects,
            })
            .await?;
        self.woken.extend(woken);
        self.run.operation = next.operation.clone();
        self.committed = Some(next.clone());
        // What a standby knows gets old: the leader continues the operation.
        if self.shared.running.load(Ordering::SeqCst) {
            self.shared.waiting.update(&next);
        }
        self.shared.followers.tell(&next);
        Ok(())
    }

    /// Starts attempts whose start is committed. Their timeout begins with the first poll, because a new
    /// operation may still wait for a permit.
    fn begin(&mut self, begun: Vec<(String, Direction)>) {
        for (key, direction) in begun {
            let Some(attempt) = self.prepare(&key, direction) else { continue };
            let shared = self.shared.clone();
            let work = Box::pin(async move {
                let (busy, guards) = (shared.clock.busy(), attempt.guards.clone());
                Ended { result: try_once(&shared, attempt).await, _guards: guards, _busy: busy }
            });
            self.in_flight.push(InFlight { key, direction, work });
        }
    }

    fn prepare(&self, key: &str, direction: Direction) -> Option<Attempt> {
        let step = self.run.step(key)?.clone();
        let done = self.run.steps.iter().filter(|s| s.state == StepState::Done);
        let outputs = Arc::new(done.map(|s| (s.key.clone(), s.output.clone())).collect());
        let operation = Arc::new(self.run.operation.clone());
        let notes = Arc::new(LedgerNotes {
            shared: self.shared.clone(),
            operation: operation.clone(),
            step: step.clone(),
        });
        let (now, guards) = (self.shared.clock.now(), AttemptGuards::default());
        Some(Attempt { operation, step, outputs, direction, now, notes, guards })
    }
}

/// True when the run has this step running in this direction.
fn runs(run: &Run, key: &str, direction: Direction) -> bool {
    let state = match direction {
        Direction::Run => StepState::Running,
        Direction::Compensate => StepState::Undoing,
    };
    run.step(key).is_some_and(|step| step.state == state)
}

/// The next attempt that ends; pending for ever without one.
async fn next_ended<E>(in_flight: &mut Vec<InFlight<E>>) -> (String, Direction, Ended<E>) {
    poll_fn(|cx: &mut Context<'_>| {
        for i in 0..in_flight.len() {
            if let Poll::Ready(ended) = in_flight[i].work.as_mut().poll(cx) {
                let InFlight { key, direction, .. } = in_flight.swap_remove(i);
                return Poll::Ready((key, direction, ended));
            }
        }
        Poll::Pending
    })
    .await
}

async fn sleep_until<S: Steps>(shared: &Shared<S>, at: Option<Timestamp>) {
    match at {
        Some(at) => shared.clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Runs one attempt within its timeout. Timeout and panic are `unknown`: the call may have taken effect.
async fn try_once<S: Steps>(shared: &Shared<S>, attempt: Attempt) -> Result<Done<S::Effect>, Failure> {
    let timeout = attempt.step.policy.timeout();
    let deadline = shared.clock.sleep_until(shared.clock.now() + timeout);
    tokio::select! {
        biased;
        result = AssertUnwindSafe(shared.steps.attempt(attempt)).catch_unwind() => result.unwrap_or_else(|_| {
            let message = "the step's code panicked, which is a defect of the server; its log has the details";
            Err(Failure::unknown("panic", message).wrong_answer())
        }),
        () = deadline => Err(Failure::unknown("timeout", format!("no response within {timeout:?}"))),
    }
}

/// Commits the notes of a running attempt.
struct LedgerNotes<S: Steps> {
    shared: Arc<Shared<S>>,
    operation: Arc<Operation>,
    step: Step,
}

#[async_trait]
impl<S: Steps> Notes for LedgerNotes<S> {
    async fn note(&self, note: Value) -> Result<(), Failure> {
        let step = Step { note: Some(note), ..self.step.clone() };
        let noted = self.shared.ledger.note(self.operation.id, self.operation.epoch, &step).await;
        noted.map_err(|why| Failure::retryable("ledger", why))
    }
}
