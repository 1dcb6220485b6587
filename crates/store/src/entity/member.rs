//! Rows of the table `members`: the invited and active members of each tenant.

use crate::Stamp;
use crate::table::table;

table! {
    /// A member.
    Model = "members" ("id") {
        /// Id, `usr_…`.
        id: String,
        /// The tenant.
        tenant_id: String,
        /// The identity resource.
        resource_id: String,
        /// HMAC of the mail address, to find a member without storing the address.
        email_mac: String,
        /// Mail address and names, encrypted with the tenant's key.
        sealed: String,
        /// Role in the tenant.
        role: String,
        /// `invited` or `active`.
        state: String,
        /// Hash of the password, if one is set.
        password_hash: Option<String>,
        /// Whether the password is temporary.
        must_change_password: bool,
        /// Time of creation.
        created_at: Stamp,
    }
}
