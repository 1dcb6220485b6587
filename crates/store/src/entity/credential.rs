//! Rows of the table `credentials`: secrets that an operation created, each handed out once.

use crate::Stamp;
use crate::table::table;

table! {
    /// A credential.
    Model = "credentials" ("operation_id", "name") {
        /// The operation that created the credential.
        operation_id: String,
        /// Name of the credential in the operation.
        name: String,
        /// The tenant.
        tenant_id: String,
        /// The secret, encrypted with the tenant's key; null after it was handed out.
        sealed: Option<String>,
        /// Time of creation.
        created_at: Stamp,
        /// Time at which it was handed out.
        claimed_at: Option<Stamp>,
    }
}
