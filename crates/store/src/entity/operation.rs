//! Rows of the table `operations`: the ledger of long-running changes, each of one tenant.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An operation.
    Model = "operations" ("id") {
        /// Id, `op_…`.
        id: String,
        /// The tenant that the operation changes: the engine's subject.
        tenant_id: String,
        /// Operation kind, such as `onboard`.
        kind: String,
        /// The operation whose detached step created this one.
        parent_id: Option<String>,
        /// `OperationState` as text.
        state: String,
        /// Incremented by every commit; checked by compare-and-set.
        version: i64,
        /// Epoch of the executor that owns the operation.
        epoch: i64,
        /// Input of the operation kind.
        input: Json,
        /// The error that stopped the operation or caused the rollback.
        error: Option<Json>,
        /// The step with this error.
        error_step: Option<String>,
        /// Whether a caller has cancelled the operation.
        cancelled: bool,
        /// Time of creation.
        created_at: Stamp,
        /// Time of the last change.
        updated_at: Stamp,
        /// Time at which it reached a final state.
        finished_at: Option<Stamp>,
        /// Time after which the operation counts as stuck.
        expected_by: Option<Stamp>,
        /// Whether the alert for a stuck operation was raised.
        stuck: bool,
        /// Time of the next timer.
        wake_at: Option<Stamp>,
        /// True while no attempt runs.
        idle: bool,
    }
}
