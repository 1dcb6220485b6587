//! Former secrets that are still good, because a rotation has let them be for a while.

use crate::Stamp;
use crate::table::table;

table! {
    /// A former secret.
    Model = "rotations" ("operation_id", "resource_id") {
        /// The operation that made the one after it.
        operation_id: String,
        /// The resource that it leads to.
        resource_id: String,
        /// Its tenant.
        tenant_id: String,
        /// When it ends.
        until: Stamp,
    }
}
