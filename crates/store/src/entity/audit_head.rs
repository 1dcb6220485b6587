//! Signed heads of the audit chain.

use crate::Stamp;
use crate::table::table;

table! {
    /// A signed head.
    Model = "audit_heads" ("seq") {
        /// The last record that it covers.
        seq: i64,
        /// That record's hash.
        hash: String,
        /// Ed25519 over number, hash and instant, base64url.
        signature: String,
        /// When it was signed.
        at: Stamp,
    }
}
