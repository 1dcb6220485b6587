//! Durable operations: a plan of steps as data, a pure `decide`, a ledger that remembers, an executor that acts.
//!
//! The plan lives in the ledger, not in code that is replayed, so a release may change templates and code while
//! operations are in flight. This crate knows no tenants and no providers: a step's input is opaque to it.

pub mod clock;
pub mod decide;
mod driver;
pub mod executor;
mod follow;
pub mod ledger;
pub mod memory;
pub mod operation;
pub mod retry;
pub mod run;
pub mod signal;

pub use clock::{Clock, SystemClock};
pub use executor::{Executor, ExecutorConfig};
pub use follow::Changes;
pub use ledger::{Commit, CommitError, Ledger, Waiting};
pub use operation::{Mode, OnFailure, Operation, OperationState, Policy, Run, Step, StepState, Wait};
pub use run::{Attempt, AttemptGuards, Done, Steps, Verb};
pub use signal::{Signal, SignalKind};
