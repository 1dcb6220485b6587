//! Flags and settings of tenants.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// A tenant's configuration.
    Model = "configs" ("tenant_id") {
        /// Its tenant.
        tenant_id: String,
        /// `tenant.{id}`.
        namespace: String,
        /// The config resource.
        resource_id: String,
        /// Feature flags.
        flags: Json,
        /// Settings.
        settings: Json,
        /// When it last changed.
        updated_at: Stamp,
    }
}
