//! API keys, by hash: the key itself is shown once.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An API key.
    Model = "api_keys" ("id") {
        /// Its id, `key_…`.
        id: String,
        /// SHA-256 of the key.
        hash: String,
        /// What people call it.
        name: String,
        /// What it may do.
        scopes: Json,
        /// The only tenant it sees, if it is a tenant key.
        tenant_id: Option<String>,
        /// When it was made.
        created_at: Stamp,
        /// When it ends.
        expires_at: Option<Stamp>,
        /// When it was revoked.
        revoked_at: Option<Stamp>,
    }
}
