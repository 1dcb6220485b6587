//! The ledger: what must be remembered so that any process can go on where another one stopped.
//!
//! A commit is all or nothing, and refused if the operation has moved on since it was read. Every implementation
//! passes the contract suite in `tests/it/ledger_contract.rs` of this crate's users.

use std::sync::Arc;

use async_trait::async_trait;
use tenantry_model::{Timestamp, id::OperationId, id::SignalId};

use crate::operation::{Run, Step};
use crate::signal::Signal;

/// One atomic change.
#[derive(Debug)]
pub struct Commit<E> {
    /// The operation as it shall be. `operation.version` is one more than that of the row it replaces; 1 makes a new row.
    pub run: Arc<Run>,
    /// Epoch of the row it replaces (for a claim it differs from the new one).
    pub expected_epoch: i64,
    /// Keys of the steps that changed. For a new operation: all.
    pub changed_steps: Vec<String>,
    /// Signals that this change has applied.
    pub applied: Vec<SignalId>,
    /// New child operations with their steps, at version 1.
    pub children: Vec<Run>,
    /// Signals to other operations (children, the parent).
    pub signals: Vec<(OperationId, Signal)>,
    /// What else becomes true with it.
    pub effects: Vec<E>,
}

/// Why nothing was committed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The operation was changed by somebody else, or belongs to a newer epoch.
    #[error("the operation has moved on")]
    Stale,
    /// An effect's condition does not hold (a name is taken, a row is not in the expected state).
    #[error("conflict in {table}")]
    Conflict {
        /// The table whose condition failed.
        table: String,
    },
    /// The database refuses the values: a defect of whoever made them. Nothing was written.
    #[error("rows of {table} are refused")]
    Refused {
        /// The table that refused.
        table: String,
    },
    /// The database does not answer, or refuses (disk full …). It may or may not have committed.
    #[error("the ledger is unavailable: {0}")]
    Unavailable(String),
}

/// An operation that needs attention at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub id: OperationId,
    /// Whether nothing ran when the last process ended.
    pub idle: bool,
    /// Its next timer.
    pub wake_at: Option<Timestamp>,
    /// Whether signals wait for it.
    pub signalled: bool,
}

/// The memory of operations.
#[async_trait]
pub trait Ledger<E: Send + Sync + 'static>: Send + Sync + 'static {
    /// Takes over: raises the epoch, so that commits of every earlier executor are refused, and returns it.
    async fn begin_epoch(&self) -> Result<i64, CommitError>;

    /// The epoch of whoever runs now.
    async fn epoch(&self) -> Result<i64, CommitError>;

    /// An operation with its steps and the signals that wait for it, oldest first.
    async fn load(&self, id: OperationId) -> Result<Option<(Run, Vec<Signal>)>, CommitError>;

    /// Writes all of it or nothing.
    async fn commit(&self, commit: Commit<E>) -> Result<(), CommitError>;

    /// Every operation that is unfinished, or that a signal waits for (also a finished child), by id.
    async fn unfinished(&self) -> Result<Vec<Waiting>, CommitError>;

    /// Leaves a signal for an operation. False: there is no such operation.
    async fn signal(&self, id: OperationId, signal: Signal, effects: Vec<E>) -> Result<bool, CommitError>;

    /// Commits an attempt's note on its running step, without a change of the operation's version. `Stale` if the step is not running in this epoch.
    async fn note(&self, id: OperationId, epoch: i64, step: &Step) -> Result<(), CommitError>;
}
