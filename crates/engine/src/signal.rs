//! Signals: what a person asks of an operation in flight. Committed first, applied by `decide`, usable at any time.

use serde::{Deserialize, Serialize};
use tenantry_model::{Timestamp, id::SignalId};

/// A request to an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Its id; signals are applied in this order.
    pub id: SignalId,
    /// What is asked.
    #[serde(flatten)]
    pub kind: SignalKind,
    /// Who asks: an id, never a name.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SignalKind {
    /// Start nothing new.
    Pause,
    /// Go on after a pause.
    Resume,
    /// End it and undo what it made.
    Cancel,
    /// Try the failed steps again, from the failed one on, with fresh retries.
    Retry,
    /// Leave a step out for good.
    Skip {
        /// The step's key.
        step: String,
        /// Why.
        reason: String,
    },
    /// Let a step go on that waits for approval.
    Approve {
        /// The step's key.
        step: String,
    },
    /// Refuse a step that waits for approval: the operation is rolled back.
    Reject {
        /// The step's key.
        step: String,
        /// Why.
        reason: String,
    },
    /// End it at once and undo nothing: the operation that sends this takes over what was made, half-done things included.
    Supersede,
    /// A child operation has ended.
    ChildFinished,
}
