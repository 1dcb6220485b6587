//! One-time sign-in codes, by hash.

use crate::Stamp;
use crate::table::table;

table! {
    /// A code.
    Model = "sign_in_codes" ("hash") {
        /// SHA-256 of the code.
        hash: String,
        /// Its tenant.
        tenant_id: String,
        /// The member that signs in with it.
        member_id: String,
        /// What it is for, such as `smoke_test`.
        purpose: String,
        /// When it ends.
        expires_at: Stamp,
        /// When it was used.
        used_at: Option<Stamp>,
    }
}
