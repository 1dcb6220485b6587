//! Rows of the table `configs`: feature flags and settings of tenants.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// A tenant's configuration.
    Model = "configs" ("tenant_id") {
        /// The tenant.
        tenant_id: String,
        /// `tenant.{id}`.
        namespace: String,
        /// The config resource.
        resource_id: String,
        /// Feature flags.
        flags: Json,
        /// Settings.
        settings: Json,
        /// Time of the last change.
        updated_at: Stamp,
    }
}
