//! Durable operations: a plan of steps as data, pure decisions, a ledger that stores them, an executor that
//! runs them. The ledger stores the plan itself, so a release may change templates and code while operations
//! run. A step's input is opaque to this crate: it knows neither tenants nor providers.

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
mod waiting;

pub use clock::{Clock, SystemClock};
pub use executor::{Executor, ExecutorConfig};
pub use follow::Changes;
pub use ledger::{Commit, CommitError, Ledger, Waiting};
pub use operation::{Mode, OnFailure, Operation, OperationState, Policy, Run, Step, StepState, Wait};
pub use run::{Attempt, AttemptGuards, Direction, Done, Steps};
pub use signal::{Signal, SignalKind};
