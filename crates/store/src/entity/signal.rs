//! Rows of the table `signals`: signals to operations, committed before the executor applies them.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// A signal.
    Model = "signals" ("id") {
        /// Id, `sig_…`. Signals are applied in the order of their ids.
        id: String,
        /// The operation.
        operation_id: String,
        /// The engine's `SignalKind`, as JSON.
        signal: Json,
        /// Id of the caller that sent the signal.
        by: String,
        /// Time of creation.
        at: Stamp,
        /// Whether the operation has applied the signal.
        applied: bool,
    }
}
