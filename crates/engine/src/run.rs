//! The contract of the code behind the steps: the engine calls it, the control plane implements it.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tenantry_model::{Failure, Timestamp};

use crate::operation::{Operation, Run, Step};

/// The direction of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Runs the step. Must be safe to repeat after a failure at any point.
    Run,
    /// Compensates the step, partial work included. Must be safe to repeat.
    Compensate,
}

/// One attempt at one step.
#[derive(Clone)]
pub struct Attempt {
    /// The operation at the start of the attempt, as committed.
    pub operation: Arc<Operation>,
    /// The step at the start of the attempt, as committed. Its `note` is from the previous attempt if a crash
    /// cut that off.
    pub step: Step,
    /// Outputs of the done steps, by key.
    pub outputs: Arc<serde_json::Map<String, Value>>,
    /// Direction.
    pub direction: Direction,
    /// When the attempt started.
    pub now: Timestamp,
    /// Commits a note on the step while the attempt runs.
    pub notes: Arc<dyn Notes>,
    /// Guards that the engine keeps until the attempt's end is committed.
    pub guards: AttemptGuards,
}

/// Guards of an attempt, such as locks, which the engine drops after the attempt's end is committed or the
/// attempt is cancelled. Not for transactional steps, whose end is committed together with other steps; and
/// at most one step of an operation may take the same lock.
#[derive(Clone, Default)]
pub struct AttemptGuards(Arc<Mutex<Vec<Box<dyn Send>>>>);

impl AttemptGuards {
    /// Adds a guard.
    pub fn keep(&self, guard: impl Send + 'static) {
        self.0.lock().push(Box::new(guard));
    }
}

/// Stores the durable note of an attempt.
#[async_trait]
pub trait Notes: Send + Sync {
    /// Returns when the note is committed to the step's row. Fails when another executor owns the operation.
    async fn note(&self, note: Value) -> Result<(), Failure>;
}

/// Result of a successful attempt.
#[derive(Clone, Debug)]
pub struct Done<E> {
    /// Stored in the step; without secrets and without personal data in clear.
    pub output: Value,
    /// Committed in the transaction that records the step's end.
    pub effects: Vec<E>,
}

/// The code behind the steps.
#[async_trait]
pub trait Steps: Send + Sync + 'static {
    /// A write that the ledger commits together with its own rows.
    type Effect: Clone + Send + Sync + 'static;

    /// True when running this step only computes effects. Its start, end and effects then share one
    /// transaction, which may be the one that creates the operation. Its compensation always starts after a
    /// separate commit, because it may read what was written.
    fn transactional(&self, step: &Step) -> bool;

    /// Effects committed with the start of an attempt, before it runs.
    fn intend(&self, run: &Run, step: &Step, direction: Direction, now: Timestamp) -> Vec<Self::Effect>;

    /// Runs one attempt.
    async fn attempt(&self, attempt: Attempt) -> Result<Done<Self::Effect>, Failure>;

    /// The child operation of a detached step. Pure: the same step gives the same plan. The engine sets id,
    /// parent, version and epoch.
    fn detach(&self, operation: &Operation, step: &Step) -> Run;

    /// Transition hooks: effects committed with a change of the operation, for example when it finishes,
    /// parks or is stuck. `before` is none for a new operation.
    fn changed(&self, before: Option<&Operation>, after: &Run, now: Timestamp) -> Vec<Self::Effect>;
}
