//! Invitations into a tenant, by hash of their token.

use crate::Stamp;
use crate::table::table;

table! {
    /// An invitation.
    Model = "invitations" ("id") {
        /// Its id, `inv_…`.
        id: String,
        /// Its tenant.
        tenant_id: String,
        /// The invited member.
        member_id: String,
        /// SHA-256 of the token.
        token_hash: String,
        /// The role offered.
        role: String,
        /// When it ends.
        expires_at: Stamp,
        /// When it was accepted.
        accepted_at: Option<Stamp>,
        /// When it was made.
        created_at: Stamp,
    }
}
