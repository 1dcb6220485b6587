//! A ledger in memory, for tests: the reference implementation of the ledger's contract.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use parking_lot::Mutex;
use tenantry_model::id::OperationId;

use crate::ledger::{Commit, CommitError, Ledger, Waiting};
use crate::operation::{Run, Step, StepState};
use crate::signal::Signal;

/// A ledger in memory. Keeps the effects in the order of their commits.
#[derive(Debug)]
pub struct MemoryLedger<E> {
    state: Mutex<State<E>>,
}

#[derive(Debug)]
struct State<E> {
    epoch: i64,
    runs: BTreeMap<OperationId, Run>,
    /// By subject, its unfinished operation without a parent.
    busy: HashMap<String, OperationId>,
    signals: BTreeMap<OperationId, Vec<Signal>>,
    effects: Vec<E>,
}

impl<E> Default for MemoryLedger<E> {
    fn default() -> Self {
        let state = State {
            epoch: 0,
            runs: BTreeMap::new(),
            busy: HashMap::new(),
            signals: BTreeMap::new(),
            effects: Vec::new(),
        };
        Self { state: Mutex::new(state) }
    }
}

impl<E: Clone> MemoryLedger<E> {
    /// Every effect committed so far.
    pub fn effects(&self) -> Vec<E> {
        self.state.lock().effects.clone()
    }
    /// Every run, by id.
    pub fn runs(&self) -> Vec<Run> {
        self.state.lock().runs.values().cloned().collect()
    }
}

#[async_trait]
impl<E: Clone + Send + Sync + 'static> Ledger<E> for MemoryLedger<E> {
    async fn begin_epoch(&self) -> Result<i64, CommitError> {
        let mut state = self.state.lock();
        state.epoch += 1;
        Ok(state.epoch)
    }

    async fn epoch(&self) -> Result<i64, CommitError> {
        Ok(self.state.lock().epoch)
    }

    async fn load(&self, id: OperationId) -> Result<Option<(Run, Vec<Signal>)>, CommitError> {
        let state = self.state.lock();
        let mut signals = state.signals.get(&id).cloned().unwrap_or_default();
        signals.sort_by_key(|signal| signal.id);
        Ok(state.runs.get(&id).map(|run| (run.clone(), signals)))
    }

    async fn commit(&self, commit: Commit<E>) -> Result<(), CommitError> {
        let mut state = self.state.lock();
        let operation = &commit.run.operation;
        if operation.epoch < state.epoch {
            return Err(CommitError::Stale);
        }
        match state.runs.get(&operation.id) {
            None if operation.version == 1 => {
                if operation.parent.is_none() && state.busy.contains_key(&operation.subject) {
                    return Err(CommitError::Conflict { table: "operations".to_owned() });
                }
            }
            Some(old)
                if old.operation.version + 1 == operation.version
                    && old.operation.epoch == commit.expected_epoch => {}
            _ => return Err(CommitError::Stale),
        }
        let id = operation.id;
        if operation.parent.is_none() && !operation.state.is_final() {
            state.busy.insert(operation.subject.clone(), id);
        } else if state.busy.get(&operation.subject) == Some(&id) {
            state.busy.remove(&operation.subject);
        }
        // As in a database, only the listed steps are written.
        match state.runs.get_mut(&id) {
            Some(old) => {
                old.operation = operation.clone();
                for new in commit.run.steps.iter().filter(|s| commit.changed_steps.contains(&s.key)) {
                    if let Some(step) = old.step_mut(&new.key) {
                        *step = new.clone();
                    }
                }
            }
            None => {
                state.runs.insert(id, Run::clone(&commit.run));
            }
        }
        if let Some(waiting) = state.signals.get_mut(&id) {
            waiting.retain(|s| !commit.applied.contains(&s.id));
        }
        for child in commit.children {
            state.runs.insert(child.operation.id, child);
        }
        for (to, signal) in commit.signals {
            state.signals.entry(to).or_default().push(signal);
        }
        state.effects.extend(commit.effects);
        Ok(())
    }

    async fn unfinished(&self) -> Result<Vec<Waiting>, CommitError> {
        let state = self.state.lock();
        let waiting = state.runs.values().map(|run| {
            let operation = &run.operation;
            let signalled = state.signals.get(&operation.id).is_some_and(|s| !s.is_empty());
            let (id, idle, wake_at) = (operation.id, operation.idle, operation.wake_at);
            (operation.state.is_final(), Waiting { id, idle, wake_at, signalled })
        });
        Ok(waiting.filter(|(ended, w)| !ended || w.signalled).map(|(_, w)| w).collect())
    }

    async fn signal(&self, id: OperationId, signal: Signal, effects: Vec<E>) -> Result<bool, CommitError> {
        let mut state = self.state.lock();
        if !state.runs.contains_key(&id) {
            return Ok(false);
        }
        state.signals.entry(id).or_default().push(signal);
        state.effects.extend(effects);
        Ok(true)
    }

    async fn note(&self, id: OperationId, epoch: i64, step: &Step) -> Result<(), CommitError> {
        let mut state = self.state.lock();
        if epoch < state.epoch {
            return Err(CommitError::Stale);
        }
        let run =
            state.runs.get_mut(&id).filter(|run| run.operation.epoch == epoch).ok_or(CommitError::Stale)?;
        let running =
            run.step_mut(&step.key).filter(|s| matches!(s.state, StepState::Running | StepState::Undoing));
        running.ok_or(CommitError::Stale)?.note = step.note.clone();
        Ok(())
    }
}
