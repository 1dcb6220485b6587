//! Resources: what tenants own outside the registry. The row is written before the external object is made.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// A resource.
    Model = "resources" ("id") {
        /// Its id, `res_…`.
        id: String,
        /// Its tenant.
        tenant_id: String,
        /// What it is.
        kind: String,
        /// The provider that made it.
        provider: String,
        /// The step that makes it.
        step_key: String,
        /// External name; one owner per provider while it stands.
        name: String,
        /// Owner tag of the external object.
        claim: String,
        /// Raised whenever it is made anew.
        generation: i64,
        /// `creating`, `present`, `removing` or `absent`.
        state: String,
        /// Outputs that may be shown.
        outputs: Json,
        /// The operation that changed it last.
        operation_id: String,
        /// When it was first intended.
        created_at: Stamp,
        /// When it last changed.
        updated_at: Stamp,
    }
}
