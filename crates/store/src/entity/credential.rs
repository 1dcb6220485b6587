//! Credentials that wait to be handed out once.

use crate::Stamp;
use crate::table::table;

table! {
    /// A credential.
    Model = "credentials" ("operation_id", "name") {
        /// The operation that made it.
        operation_id: String,
        /// What it is.
        name: String,
        /// Its tenant.
        tenant_id: String,
        /// The secret under the tenant's key; null once claimed.
        sealed: Option<String>,
        /// When it was made.
        created_at: Stamp,
        /// When it was handed out.
        claimed_at: Option<Stamp>,
    }
}
