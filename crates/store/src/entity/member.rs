//! Members: people of a tenant.

use crate::Stamp;
use crate::table::table;

table! {
    /// A member.
    Model = "members" ("id") {
        /// Its id, `usr_…`.
        id: String,
        /// Its tenant.
        tenant_id: String,
        /// The identity resource.
        resource_id: String,
        /// HMAC of the address: finds a person without knowing one.
        email_mac: String,
        /// Address and names under the tenant's key.
        sealed: String,
        /// Role in the tenant.
        role: String,
        /// `invited` or `active`.
        state: String,
        /// Hash of the password, if one is set.
        password_hash: Option<String>,
        /// Whether the password is temporary.
        must_change_password: bool,
        /// When it was made.
        created_at: Stamp,
    }
}
