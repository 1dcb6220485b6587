//! Certificates of deletion, each chained to the one before it.

use crate::Stamp;
use crate::table::table;

table! {
    /// A certificate.
    Model = "certificates" ("id") {
        /// Its id, `cert_…`.
        id: String,
        /// Its place in the chain, from 1 on.
        seq: i64,
        /// The tenant whose deletion it proves.
        tenant_id: String,
        /// The certificate as JSON, byte for byte as it was signed.
        certificate: String,
        /// Ed25519 over it, base64url.
        signature: String,
        /// SHA-256 of it, hexadecimal: the next one names it.
        hash: String,
        /// When it was issued.
        at: Stamp,
    }
}
