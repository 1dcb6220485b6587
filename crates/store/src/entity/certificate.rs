//! Rows of the table `certificates`: deletion certificates, each chained to the previous one.

use crate::Stamp;
use crate::table::table;

table! {
    /// A certificate.
    Model = "certificates" ("id") {
        /// Id, `cert_…`.
        id: String,
        /// Position in the chain, from 1 on.
        seq: i64,
        /// The deleted tenant.
        tenant_id: String,
        /// The certificate: exactly the JSON text that was signed.
        certificate: String,
        /// Ed25519 signature of this text, in base64url.
        signature: String,
        /// SHA-256 of this text, in hexadecimal. The next certificate contains it.
        hash: String,
        /// Time of issue.
        at: Stamp,
    }
}
