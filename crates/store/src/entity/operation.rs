//! Operations: the ledger's row for one long-running change of one tenant.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An operation.
    Model = "operations" ("id") {
        /// Its id, `op_…`.
        id: String,
        /// The tenant that it changes: the engine's subject.
        tenant_id: String,
        /// The use case, such as `onboard`.
        kind: String,
        /// The operation whose detached step this is.
        parent_id: Option<String>,
        /// A word of `OperationState`.
        state: String,
        /// Raised by every commit; compare-and-set.
        version: i64,
        /// The executor generation that owns it.
        epoch: i64,
        /// What the use case needs again after a restart.
        input: Json,
        /// What stopped it.
        error: Option<Json>,
        /// The step that stopped it.
        error_step: Option<String>,
        /// Whether a caller asked to end it.
        cancelled: bool,
        /// When it began.
        created_at: Stamp,
        /// When it last changed.
        updated_at: Stamp,
        /// When it reached a final state.
        finished_at: Option<Stamp>,
        /// Later than this it counts as stuck.
        expected_by: Option<Stamp>,
        /// Whether that alert was raised.
        stuck: bool,
        /// Its next timer.
        wake_at: Option<Stamp>,
        /// Whether no attempt runs.
        idle: bool,
    }
}
