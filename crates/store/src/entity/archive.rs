//! Archives of what tenants have. Their files lie on the shelf, under their ids.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An archive.
    Model = "archives" ("id") {
        /// Its id, `arc_…`.
        id: String,
        /// Its tenant.
        tenant_id: String,
        /// The operation that made it.
        operation_id: String,
        /// `export`, `backup` or `import`.
        purpose: String,
        /// Its length in bytes, clear.
        size: i64,
        /// SHA-256 of those, in hexadecimal.
        sha256: String,
        /// What is in it and what is not, without its files.
        content: Json,
        /// What was proven of it; null if nothing was.
        verified: Option<Json>,
        /// When it was made.
        created_at: Stamp,
        /// When it goes.
        expires_at: Stamp,
    }
}
