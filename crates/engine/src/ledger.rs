//! The ledger's contract: durable storage from which any process can continue an operation. A commit is
//! atomic and fails when the operation has changed since it was read. `tenantry_testkit::ledger_contract`
//! tests an implementation.

use std::sync::Arc;

use async_trait::async_trait;
use tenantry_model::{Timestamp, id::OperationId, id::SignalId};

use crate::operation::{Run, Step};
use crate::signal::Signal;

/// One atomic change of an operation.
#[derive(Debug)]
pub struct Commit<E> {
    /// The new state. `operation.version` is one more than that of the replaced row; 1 creates a row.
    pub run: Arc<Run>,
    /// Epoch of the replaced row; it differs from the new one after a take-over.
    pub expected_epoch: i64,
    /// Keys of the changed steps; of a new operation all of them.
    pub changed_steps: Vec<String>,
    /// Applied signals, which are deleted.
    pub applied: Vec<SignalId>,
    /// New child operations with their steps, at version 1.
    pub children: Vec<Run>,
    /// Signals to other operations (children, the parent).
    pub signals: Vec<(OperationId, Signal)>,
    /// Effects written in the same transaction.
    pub effects: Vec<E>,
}

/// Why a commit failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The operation has changed since it was read, or belongs to a newer epoch.
    #[error("the operation has changed since it was read")]
    Stale,
    /// The condition of an effect failed: a name is taken, or a row is not in the expected state.
    #[error("conflict in {table}")]
    Conflict {
        /// The table whose condition failed.
        table: String,
    },
    /// The database rejected the values, which is a defect of the code that made them. Nothing was written.
    #[error("the database rejected rows of {table}")]
    Refused {
        /// The table of the rejected rows.
        table: String,
    },
    /// The database did not answer, or failed (disk full …). The change may or may not be committed.
    #[error("the ledger is unavailable: {0}")]
    Unavailable(String),
}

/// An operation that an executor continues after a take-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its id.
    pub id: OperationId,
    /// True when no attempt ran at its last commit.
    pub idle: bool,
    /// Its next timer.
    pub wake_at: Option<Timestamp>,
    /// True when it has pending signals.
    pub signalled: bool,
}

/// Durable storage of operations.
#[async_trait]
pub trait Ledger<E: Send + Sync + 'static>: Send + Sync + 'static {
    /// Raises the epoch, so that commits of earlier executors fail with `Stale`, and returns it.
    async fn begin_epoch(&self) -> Result<i64, CommitError>;

    /// The current leader's epoch.
    async fn epoch(&self) -> Result<i64, CommitError>;

    /// An operation with its steps and its pending signals, oldest first.
    async fn load(&self, id: OperationId) -> Result<Option<(Run, Vec<Signal>)>, CommitError>;

    /// Writes the change atomically.
    async fn commit(&self, commit: Commit<E>) -> Result<(), CommitError>;

    /// Operations that are unfinished or have pending signals (also finished children), by id.
    async fn unfinished(&self) -> Result<Vec<Waiting>, CommitError>;

    /// Stores a signal for an operation. False when the operation does not exist.
    async fn signal(&self, id: OperationId, signal: Signal, effects: Vec<E>) -> Result<bool, CommitError>;

    /// Commits a note on a running step without changing the operation's version. `Stale` when the step is
    /// not running in this epoch.
    async fn note(&self, id: OperationId, epoch: i64, step: &Step) -> Result<(), CommitError>;
}
