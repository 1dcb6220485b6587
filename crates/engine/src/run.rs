//! What the executor asks of the code behind the steps. The implementor knows tenants and providers; the engine
//! knows when to call it.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tenantry_model::{Failure, Timestamp};

use crate::operation::{Operation, Run, Step};

/// The direction of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Make it so. Must be safe to call again after any failure, at any point inside itself.
    Do,
    /// Make it not so, half-done things included.
    Undo,
}

/// One attempt at one step.
#[derive(Clone)]
pub struct Attempt {
    /// The operation as committed when the attempt began.
    pub operation: Arc<Operation>,
    /// The step as committed when the attempt began (its `note` is that of the attempt before, if a crash cut that off).
    pub step: Step,
    /// Outputs of all steps that are done, by key.
    pub outputs: Arc<serde_json::Map<String, Value>>,
    /// Direction.
    pub verb: Verb,
    /// The instant of the start.
    pub now: Timestamp,
    /// Lets the attempt commit a note about itself before it goes on.
    pub notes: Arc<dyn Notes>,
    /// Guards that are released once the attempt's end is committed.
    pub guards: AttemptGuards,
}

/// Guards, such as those of locks, that an attempt keeps until its end is committed or it is cut off. Not for transactional
/// steps, whose end is committed together with others; and at most one step of an operation may wait for the same lock.
#[derive(Clone, Default)]
pub struct AttemptGuards(Arc<Mutex<Vec<Box<dyn Send>>>>);

impl AttemptGuards {
    /// Keeps this guard as well.
    pub fn keep(&self, guard: impl Send + 'static) {
        self.0.lock().push(Box::new(guard));
    }
}

/// Where an attempt leaves a durable note about itself.
#[async_trait]
pub trait Notes: Send + Sync {
    /// Returns once the note is committed to the step's row. Fails if the attempt has lost its operation.
    async fn note(&self, note: Value) -> Result<(), Failure>;
}

/// A successful attempt.
#[derive(Clone, Debug)]
pub struct Done<E> {
    /// Stored with the step; neither secrets nor clear personal data.
    pub output: Value,
    /// Committed in the transaction that records the step's end.
    pub effects: Vec<E>,
}

/// The code behind the steps.
#[async_trait]
pub trait Steps: Send + Sync + 'static {
    /// What the ledger writes beside its own rows.
    type Effect: Clone + Send + Sync + 'static;

    /// Whether doing this step only computes effects and touches nothing outside the ledger. Its start, end and
    /// effects then go into one transaction, also into the one that creates the operation. An undo always begins
    /// after a commit of its own: it may have to read what was written.
    fn transactional(&self, step: &Step) -> bool;

    /// Effects committed with the step's start: what is intended, before it is tried.
    fn intend(&self, run: &Run, step: &Step, verb: Verb, now: Timestamp) -> Vec<Self::Effect>;

    /// One attempt.
    async fn attempt(&self, attempt: Attempt) -> Result<Done<Self::Effect>, Failure>;

    /// The child operation that a detached step stands for. Pure: the same step gives the same plan. Id, parent,
    /// version and epoch are the engine's to set.
    fn detach(&self, operation: &Operation, step: &Step) -> Run;

    /// Effects of a change of the operation as a whole (it finished, it parked, it is stuck), committed with it.
    /// `before` is none for a new operation.
    fn changed(&self, before: Option<&Operation>, after: &Run, now: Timestamp) -> Vec<Self::Effect>;
}
