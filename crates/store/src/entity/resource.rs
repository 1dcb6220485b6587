//! Rows of the table `resources`: objects of tenants at providers. Each row is committed before the provider
//! creates the object.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// A resource.
    Model = "resources" ("id") {
        /// Id, `res_…`.
        id: String,
        /// The tenant.
        tenant_id: String,
        /// Resource kind.
        kind: String,
        /// Name of the provider.
        provider: String,
        /// Key of the step that creates the resource.
        step_key: String,
        /// External name, unique per provider while the resource exists.
        name: String,
        /// Owner tag of the external object.
        claim: String,
        /// Incremented each time the resource is created anew.
        generation: i64,
        /// `creating`, `present`, `removing` or `absent`.
        state: String,
        /// Outputs, without secrets and personal data.
        outputs: Json,
        /// The operation whose step created the resource.
        operation_id: String,
        /// Time of creation of the row.
        created_at: Stamp,
        /// Time of the last change.
        updated_at: Stamp,
    }
}
