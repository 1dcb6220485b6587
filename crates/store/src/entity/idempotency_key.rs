//! Rows of the table `idempotency_keys`: the response to each `Idempotency-Key`, written in the request's
//! transaction.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An answered key.
    Model = "idempotency_keys" ("principal", "key_hash") {
        /// The principal that sent the key.
        principal: String,
        /// SHA-256 of the key.
        key_hash: String,
        /// SHA-256 of the request, to reject the same key with another request.
        body_hash: String,
        /// Ids of the created objects, from which the response is built again.
        answer: Json,
        /// The tenant that the request created or changed.
        tenant_id: Option<String>,
        /// Time of creation.
        created_at: Stamp,
    }
}
