//! Rows of the table `events`, each written in the transaction of the change that it reports. The sealer
//! numbers them after the commit.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An event.
    Model = "events" ("id") {
        /// Id, `evt_…`.
        id: String,
        /// Position in the order of events; null until sealed.
        seq: Option<i64>,
        /// The tenant that changed; null for an event without a tenant.
        tenant_id: Option<String>,
        /// Type of the event, such as `tenant.provisioned`.
        kind as "type": String,
        /// Details, without personal data.
        data: Json,
        /// Personal data, encrypted with the tenant's key.
        sealed: Option<String>,
        /// The operation that caused the event.
        operation_id: Option<String>,
        /// Time of creation.
        at: Stamp,
    }
}
