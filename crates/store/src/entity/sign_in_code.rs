//! Rows of the table `sign_in_codes`: one-time codes. They contain the hash of each code, not the code.

use crate::Stamp;
use crate::table::table;

table! {
    /// A code.
    Model = "sign_in_codes" ("hash") {
        /// SHA-256 of the code.
        hash: String,
        /// The tenant.
        tenant_id: String,
        /// The member that signs in with it.
        member_id: String,
        /// Purpose, such as `smoke_test`.
        purpose: String,
        /// Time of expiry.
        expires_at: Stamp,
        /// Time of use; null if the code is unused.
        used_at: Option<Stamp>,
    }
}
