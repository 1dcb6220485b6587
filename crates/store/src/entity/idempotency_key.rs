//! Answers given for an `Idempotency-Key`, committed with what they answer for.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An answered key.
    Model = "idempotency_keys" ("principal", "key_hash") {
        /// The principal that sent it.
        principal: String,
        /// SHA-256 of the key.
        key_hash: String,
        /// SHA-256 of the request, to tell a repetition from a reuse.
        body_hash: String,
        /// Ids of what was made, from which the answer is made again.
        answer: Json,
        /// The tenant it made.
        tenant_id: Option<String>,
        /// When it was made.
        created_at: Stamp,
    }
}
