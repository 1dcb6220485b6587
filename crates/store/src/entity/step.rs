//! Rows of the table `steps`: the plan of each operation, with the state of every step.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// A step.
    Model = "steps" ("operation_id", "key") {
        /// The operation.
        operation_id: String,
        /// Name in the plan, unique in the operation.
        key: String,
        /// Position in the plan, for display.
        position: i32,
        /// Resource kind or action.
        kind: String,
        /// Provider of the resource.
        provider: String,
        /// Keys of the steps that must be done or skipped before this one.
        needs: Json,
        /// Timeout, retries and the reaction to a failure.
        policy: Json,
        /// Input of the step, fixed when the plan was made.
        input: Json,
        /// `StepState` as text.
        state: String,
        /// Attempts in the current direction, without interrupted ones.
        attempts: i32,
        /// Attempts that the end of a process interrupted.
        interruptions: i32,
        /// First failure since the step, or its compensation, started, last succeeded, or was retried by an operator.
        failing_since: Option<Stamp>,
        /// Earliest next start.
        due_at: Option<Stamp>,
        /// Time of the first start.
        started_at: Option<Stamp>,
        /// Time of the end.
        finished_at: Option<Stamp>,
        /// Output, which later steps read.
        output: Json,
        /// Latest failure; stays after a successful retry.
        error: Option<Json>,
        /// Whether an attempt with unknown outcome may have created something.
        uncertain: bool,
        /// Note of the running attempt.
        note: Option<Json>,
        /// The operation that a detached step started.
        child_id: Option<String>,
    }
}
