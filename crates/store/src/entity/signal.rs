//! Signals to operations, committed before they are applied.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// A signal.
    Model = "signals" ("id") {
        /// Its id, `sig_…`; the order in which it is applied.
        id: String,
        /// Its operation.
        operation_id: String,
        /// What is asked: the engine's `SignalKind`.
        signal: Json,
        /// The caller that asked: an id.
        by: String,
        /// When it was made.
        at: Stamp,
        /// Whether the operation has taken it up.
        applied: bool,
    }
}
