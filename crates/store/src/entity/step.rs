//! Steps: the batches of an operation, the plan and how far each has come.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// A step.
    Model = "steps" ("operation_id", "key") {
        /// Its operation.
        operation_id: String,
        /// Its name in the plan.
        key: String,
        /// ResourceFolder in the plan, for people.
        position: i32,
        /// What it works on.
        kind: String,
        /// The provider that does it.
        provider: String,
        /// Keys of the steps before it.
        needs: Json,
        /// How it is tried.
        policy: Json,
        /// What its code needs, frozen with the plan.
        input: Json,
        /// A word of `StepState`.
        state: String,
        /// Attempts begun in the current direction.
        attempts: i32,
        /// Attempts cut off by the end of a process.
        interruptions: i32,
        /// Not before this.
        due_at: Option<Stamp>,
        /// First start.
        started_at: Option<Stamp>,
        /// End.
        finished_at: Option<Stamp>,
        /// What it gave.
        output: Json,
        /// Its latest failure.
        error: Option<Json>,
        /// Whether an attempt may have left something unseen.
        uncertain: bool,
        /// What a running attempt noted of itself.
        note: Option<Json>,
        /// The operation that a detached step started.
        child_id: Option<String>,
    }
}
