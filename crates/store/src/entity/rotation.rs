//! Rows of the table `rotations`: former secrets that stay valid for a while after a rotation.

use crate::Stamp;
use crate::table::table;

table! {
    /// A former secret.
    Model = "rotations" ("operation_id", "resource_id") {
        /// The operation that replaced the secret.
        operation_id: String,
        /// The resource that the secret gives access to.
        resource_id: String,
        /// The tenant.
        tenant_id: String,
        /// Time until which the secret is valid.
        until: Stamp,
    }
}
