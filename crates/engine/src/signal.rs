//! Signals: requests to an operation. They are committed first; `decide` applies them.

use serde::{Deserialize, Serialize};
use tenantry_model::{Timestamp, id::SignalId};

/// A request to an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Its id; signals are applied in the order of their ids.
    pub id: SignalId,
    /// The request.
    #[serde(flatten)]
    pub kind: SignalKind,
    /// Id of the sender: a caller or another operation, or, for a wake, the provider's name.
    pub by: String,
    /// When it was sent.
    pub at: Timestamp,
}

/// Kinds of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SignalKind {
    /// Start no attempt until the operation is resumed.
    Pause,
    /// Continue after a pause.
    Resume,
    /// Compensate every step and end in `cancelled`.
    Cancel,
    /// Retry the failed steps with new retries.
    Retry,
    /// Skip a step.
    Skip {
        /// The step's key.
        step: String,
        /// Why.
        reason: String,
    },
    /// Approve a step that waits for approval.
    Approve {
        /// The step's key.
        step: String,
    },
    /// Reject a step that waits for approval: the operation rolls back.
    Reject {
        /// The step's key.
        step: String,
        /// Why.
        reason: String,
    },
    /// End without compensation: the sending operation takes over every resource, partial ones included.
    Supersede,
    /// A provider that did not work works again: steps that wait for it are due.
    Wake {
        /// The provider's name.
        provider: String,
    },
    /// A child operation has ended.
    ChildFinished,
}
