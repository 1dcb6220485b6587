//! Rows of the table `sessions`: sign-ins of members. They contain hashes of refresh tokens, not the tokens.

use crate::Stamp;
use crate::table::table;

table! {
    /// A session.
    Model = "sessions" ("id") {
        /// Id, `ses_…`.
        id: String,
        /// The tenant.
        tenant_id: String,
        /// The member.
        member_id: String,
        /// How the member signed in: `invitation`, `password` or `code`.
        method: String,
        /// Kind of the client, in words of a fixed list, such as `Firefox on Linux`.
        user_agent: String,
        /// SHA-256 of the part that all refresh tokens of the session have in common.
        family_hash: String,
        /// SHA-256 of the other part of the refresh token that is valid.
        token_hash: String,
        /// Time of the sign-in.
        created_at: Stamp,
        /// Time of the last refresh, or of the sign-in.
        last_used_at: Stamp,
        /// Time at which the session ends at the latest.
        expires_at: Stamp,
        /// Time at which the session was ended; null if it was not.
        ended_at: Option<Stamp>,
        /// Why it was ended.
        end_reason: Option<String>,
    }
}
