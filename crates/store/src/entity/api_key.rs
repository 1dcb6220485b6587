//! Rows of the table `api_keys`. They contain the hash of each key, not the key, which is shown only once.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An API key.
    Model = "api_keys" ("id") {
        /// Id, `key_…`.
        id: String,
        /// SHA-256 of the key.
        hash: String,
        /// Display name.
        name: String,
        /// Scopes of the key.
        scopes: Json,
        /// The only tenant that a tenant key may access; null for other keys.
        tenant_id: Option<String>,
        /// Time of creation.
        created_at: Stamp,
        /// Time of expiry.
        expires_at: Option<Stamp>,
        /// Time of revocation; null if the key was not revoked.
        revoked_at: Option<Stamp>,
    }
}
