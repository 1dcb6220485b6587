//! Rows of the table `archives`. The archive store has the file of each, under the archive's id.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An archive.
    Model = "archives" ("id") {
        /// Id, `arc_…`.
        id: String,
        /// The tenant.
        tenant_id: String,
        /// The operation that created the archive.
        operation_id: String,
        /// `export`, `backup` or `import`.
        purpose: String,
        /// Length of the unencrypted archive, in bytes.
        size: i64,
        /// SHA-256 of the unencrypted archive, in hexadecimal.
        sha256: String,
        /// Summary of the content and of what was left out, without the list of files.
        content: Json,
        /// Result of the verification; null if the archive was not verified.
        verified: Option<Json>,
        /// Time of creation.
        created_at: Stamp,
        /// Time of expiry, after which the archive is deleted.
        expires_at: Stamp,
    }
}
