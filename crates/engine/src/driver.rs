//! One active operation: decide, commit, act, settle, until it is final or only waits.
//!
//! The driver is the only writer of its operation in this process. What it has not committed it has not done: a
//! start is committed before the attempt, an end before anything that follows from it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use async_trait::async_trait;
use serde_json::Value;
use tenantry_model::id::{OperationId, SignalId};
use tenantry_model::{Failure, Timestamp};

use crate::clock::Busy;
use crate::decide::{decide, recover, settle};
use crate::executor::{Shared, Slot};
use crate::ledger::{Commit, CommitError};
use crate::operation::{Operation, Run, Step, StepState};
use crate::run::{Attempt, Done, Notes, Steps, Verb};
use crate::signal::{Signal, SignalKind};

/// Why a driver has stopped driving.
pub(crate) enum Next {
    /// Nothing to do until a hint or a timer.
    Rest,
    /// What is in memory cannot be trusted any more; what is in the ledger can.
    Reload(CommitError),
}

/// An attempt in flight. Dropping it cuts it off.
struct InFlight<E> {
    key: String,
    verb: Verb,
    work: Pin<Box<dyn Future<Output = Ended<E>> + Send>>,
}

/// An attempt that has ended. It keeps a virtual clock from running ahead until it is settled.
struct Ended<E> {
    result: Result<Done<E>, Failure>,
    _busy: Busy,
}

/// What one round of deciding adds up to, for one commit.
struct Round<E> {
    effects: Vec<E>,
    children: Vec<Run>,
    signals: Vec<(OperationId, SignalKind)>,
    begun: Vec<(String, Verb)>,
}

impl<E> Round<E> {
    fn with(effects: Vec<E>) -> Self {
        Self { effects, children: Vec::new(), signals: Vec::new(), begun: Vec::new() }
    }
}

pub(crate) struct Driver<S: Steps> {
    shared: Arc<Shared<S>>,
    /// As the ledger has it. None: not yet there.
    committed: Option<Arc<Run>>,
    /// As it shall be committed next.
    run: Run,
    in_flight: Vec<InFlight<S::Effect>>,
    woken: Vec<OperationId>,
}

impl<S: Steps> Driver<S> {
    /// A new operation, not yet in the ledger.
    pub fn new(shared: Arc<Shared<S>>, mut run: Run) -> Self {
        run.operation.version = 0;
        run.operation.epoch = shared.epoch.load(Ordering::SeqCst);
        Self { shared, committed: None, run, in_flight: Vec::new(), woken: Vec::new() }
    }

    /// Takes over an operation from the ledger, with the signals that wait for it. None: there is none, or a newer
    /// executor owns it.
    pub async fn load(
        shared: &Arc<Shared<S>>,
        id: OperationId,
    ) -> Result<Option<(Self, Vec<Signal>)>, CommitError> {
        let epoch = shared.epoch.load(Ordering::SeqCst);
        let Some((run, signals)) =
            shared.ledger.load(id).await?.filter(|(run, _)| run.operation.epoch <= epoch)
        else {
            return Ok(None);
        };
        let committed = Some(Arc::new(run.clone()));
        let mut driver =
            Self { shared: shared.clone(), committed, run, in_flight: Vec::new(), woken: Vec::new() };
        // Nothing of it runs in this process, so whatever the ledger calls running was cut off.
        recover(&mut driver.run, epoch, shared.clock.now());
        Ok(Some((driver, signals)))
    }

    /// The run as committed last.
    pub fn snapshot(&self) -> Arc<Run> {
        self.committed.clone().unwrap_or_else(|| Arc::new(self.run.clone()))
    }

    /// Other operations that the last commits have made or signalled.
    pub fn take_woken(&mut self) -> Vec<OperationId> {
        std::mem::take(&mut self.woken)
    }

    /// The first commit of a new operation.
    pub async fn submit(&mut self, effects: Vec<S::Effect>) -> Result<(), CommitError> {
        self.advance(&[], Round::with(effects), None).await
    }

    /// Goes on with an operation just loaded.
    pub async fn resume(
        &mut self,
        slot: &Slot,
        signals: &[Signal],
        busy: Busy,
        wake: impl Fn(OperationId),
    ) -> Next {
        match self.advance(signals, Round::with(Vec::new()), None).await {
            Ok(()) => self.drive(slot, busy, wake).await,
            Err(why) => Next::Reload(why),
        }
    }

    /// Goes on until the operation is final, only waits, or the executor stops.
    pub async fn drive(&mut self, slot: &Slot, mut busy: Busy, wake: impl Fn(OperationId)) -> Next {
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
            let wake_at = operation.wake_at;
            let mut ended = Vec::new();
            if !hinted {
                drop(busy.take());
                tokio::select! {
                    first = next_ended(&mut self.in_flight) => ended.push(first),
                    () = slot.wake.notified() => {}
                    () = sleep_until(&self.shared, wake_at) => {}
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

    async fn settle_and_advance(
        &mut self,
        ended: Vec<(String, Verb, Ended<S::Effect>)>,
        signals: &[Signal],
    ) -> Result<(), CommitError> {
        let mut effects = Vec::new();
        let mut settled = Vec::new();
        let mut busy = Vec::new();
        for (key, verb, Ended { result, _busy }) in ended {
            busy.push(_busy);
            let failure = result.as_ref().err().cloned();
            self.record(&key, verb, result, &mut effects);
            settled.push((key, verb, failure));
        }
        match self.advance(signals, Round::with(effects), None).await {
            Err(CommitError::Conflict { table }) => {
                // What the steps wanted to write does not hold (any more): they have failed, and may be tried again.
                let conflict =
                    Failure::retryable("conflict", format!("the registry has changed meanwhile ({table})"));
                if let Some(committed) = &self.committed {
                    self.run = Run::clone(committed);
                }
                for (key, verb, failure) in settled {
                    self.record(
                        &key,
                        verb,
                        Err(failure.unwrap_or_else(|| conflict.clone())),
                        &mut Vec::new(),
                    );
                }
                self.advance(signals, Round::with(Vec::new()), Some(&conflict)).await
            }
            result => result,
        }
    }

    /// Settles one attempt; its effects join the next commit.
    fn record(
        &mut self,
        key: &str,
        verb: Verb,
        result: Result<Done<S::Effect>, Failure>,
        effects: &mut Vec<S::Effect>,
    ) {
        let result = result.map(|done| {
            effects.extend(done.effects);
            done.output
        });
        settle(&mut self.run, key, verb, result, self.shared.clock.now(), rand::random());
    }

    /// Decides, runs the transactional steps in place, commits, and begins the attempts that are left.
    /// With `refused`, the transactional steps are not run but recorded as failed that way.
    async fn advance(
        &mut self,
        signals: &[Signal],
        mut round: Round<S::Effect>,
        refused: Option<&Failure>,
    ) -> Result<(), CommitError> {
        let mut waiting = signals;
        // An executor that stops only records how its attempts ended.
        while !self.shared.stopping.load(Ordering::SeqCst) || self.committed.is_none() {
            let decision = decide(&mut self.run, std::mem::take(&mut waiting), self.shared.clock.now());
            round.signals.extend(decision.signals);
            for key in &decision.detached {
                if let Some(step) = self.run.step(key) {
                    let child = self.shared.steps.detach(&self.run.operation, step);
                    round.children.push(child);
                }
            }
            let (inside, outside): (Vec<_>, Vec<_>) = decision
                .start
                .into_iter()
                .partition(|(key, _)| self.run.step(key).is_some_and(|s| self.shared.steps.transactional(s)));
            round.begun.extend(outside);
            if inside.is_empty() {
                break;
            }
            for (key, verb) in inside {
                let result = match (refused, self.prepare(&key, verb)) {
                    (Some(failure), _) => Err(failure.clone()),
                    (None, Some(attempt)) => try_once(&self.shared, attempt).await,
                    (None, None) => continue,
                };
                self.record(&key, verb, result, &mut round.effects);
            }
        }
        // What the decision has overtaken is cut off before anything that undoes it can begin.
        let run = &self.run;
        self.in_flight.retain(|attempt| {
            let state = run.step(&attempt.key).map(|s| s.state);
            match attempt.verb {
                Verb::Do => state == Some(StepState::Running),
                Verb::Undo => state == Some(StepState::Undoing),
            }
        });
        let begun = std::mem::take(&mut round.begun);
        self.commit(signals.iter().map(|s| s.id).collect(), round, &begun).await?;
        self.begin(begun);
        Ok(())
    }

    async fn commit(
        &mut self,
        applied: Vec<SignalId>,
        mut round: Round<S::Effect>,
        begun: &[(String, Verb)],
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
        // The version in memory moves only with the ledger's.
        let mut next = self.run.clone();
        next.operation.version += 1;
        next.operation.updated_at = now;
        for (key, verb) in begun {
            if let Some(step) = next.step(key) {
                round.effects.extend(self.shared.steps.intend(&next, step, *verb, now));
            }
        }
        let before = self.committed.as_ref().map(|run| &run.operation);
        round.effects.extend(self.shared.steps.changed(before, &next, now));
        for child in &mut round.children {
            child.operation.version = 1;
            child.operation.epoch = next.operation.epoch;
        }
        let signal = |kind| Signal { id: SignalId::new(), kind, by: next.operation.id.to_string(), at: now };
        let signals: Vec<_> = round.signals.into_iter().map(|(to, kind)| (to, signal(kind))).collect();
        let woken = round.children.iter().map(|c| c.operation.id).chain(signals.iter().map(|(to, _)| *to));
        let woken: Vec<OperationId> = woken.collect();
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
        // Nobody listening is fine.
        let _ = self.shared.changes.send(next);
        Ok(())
    }

    /// Begins attempts whose start is committed.
    fn begin(&mut self, begun: Vec<(String, Verb)>) {
        for (key, verb) in begun {
            let Some(attempt) = self.prepare(&key, verb) else { continue };
            let (shared, busy) = (self.shared.clone(), self.shared.clock.busy());
            let work =
                Box::pin(async move { Ended { result: try_once(&shared, attempt).await, _busy: busy } });
            self.in_flight.push(InFlight { key, verb, work });
        }
    }

    fn prepare(&self, key: &str, verb: Verb) -> Option<Attempt> {
        let step = self.run.step(key)?.clone();
        let done = self.run.steps.iter().filter(|s| s.state == StepState::Done);
        let outputs = Arc::new(done.map(|s| (s.key.clone(), s.output.clone())).collect());
        let operation = Arc::new(self.run.operation.clone());
        let notes = Arc::new(LedgerNotes {
            shared: self.shared.clone(),
            operation: operation.clone(),
            step: step.clone(),
        });
        Some(Attempt { operation, step, outputs, verb, now: self.shared.clock.now(), notes })
    }
}

/// The first attempt to end. Never, if there is none.
async fn next_ended<E>(in_flight: &mut Vec<InFlight<E>>) -> (String, Verb, Ended<E>) {
    poll_fn(|cx: &mut Context<'_>| {
        for i in 0..in_flight.len() {
            if let Poll::Ready(ended) = in_flight[i].work.as_mut().poll(cx) {
                let InFlight { key, verb, .. } = in_flight.swap_remove(i);
                return Poll::Ready((key, verb, ended));
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

/// One attempt within its time. A time-out is `unknown`: the call may have arrived.
async fn try_once<S: Steps>(shared: &Shared<S>, attempt: Attempt) -> Result<Done<S::Effect>, Failure> {
    let timeout = attempt.step.policy.timeout();
    let deadline = shared.clock.sleep_until(attempt.now + timeout);
    tokio::select! {
        biased;
        result = shared.steps.attempt(attempt) => result,
        () = deadline => Err(Failure::unknown("timeout", format!("no answer within {timeout:?}"))),
    }
}

/// Commits notes of a running attempt.
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
