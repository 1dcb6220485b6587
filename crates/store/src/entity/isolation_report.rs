//! Rows of the table `isolation_reports`: signed reports of the isolation check. Only the newest are kept.

use crate::Stamp;
use crate::table::table;

table! {
    /// A report.
    Model = "isolation_reports" ("id") {
        /// Id, `iso_…`.
        id: String,
        /// The report: exactly the JSON text that was signed.
        report: String,
        /// Ed25519 signature of this text, in base64url.
        signature: String,
        /// Time of creation.
        at: Stamp,
    }
}
