//! Rows of the table `audit_heads`: signatures of the audit chain up to a record.

use crate::Stamp;
use crate::table::table;

table! {
    /// A signed head.
    Model = "audit_heads" ("seq") {
        /// Number of the last record that the signature covers.
        seq: i64,
        /// Hash of this record.
        hash: String,
        /// Ed25519 signature over number, hash and time, in base64url.
        signature: String,
        /// Time of the signature.
        at: Stamp,
    }
}
