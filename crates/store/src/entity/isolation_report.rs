//! Reports of the isolation check. The newest ones are kept.

use crate::Stamp;
use crate::table::table;

table! {
    /// A report.
    Model = "isolation_reports" ("id") {
        /// Its id, `iso_…`.
        id: String,
        /// The report as JSON, byte for byte as it was signed.
        report: String,
        /// Ed25519 over it, base64url.
        signature: String,
        /// When it was made.
        at: Stamp,
    }
}
