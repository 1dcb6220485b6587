//! Rows of the table `invitations`. They contain the hash of each token, not the token.

use crate::Stamp;
use crate::table::table;

table! {
    /// An invitation.
    Model = "invitations" ("id") {
        /// Id, `inv_…`.
        id: String,
        /// The tenant.
        tenant_id: String,
        /// The invited member.
        member_id: String,
        /// SHA-256 of the token.
        token_hash: String,
        /// Role that the member gets.
        role: String,
        /// Time of expiry.
        expires_at: Stamp,
        /// Time of acceptance.
        accepted_at: Option<Stamp>,
        /// Time of creation.
        created_at: Stamp,
    }
}
