//! Events: facts, written in the transaction that made them true. The sealer numbers them afterwards.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An event.
    Model = "events" ("id") {
        /// Its id, `evt_…`.
        id: String,
        /// ResourceFolder in the order of facts; null until sealed.
        seq: Option<i64>,
        /// The tenant that it concerns.
        tenant_id: Option<String>,
        /// Dotted name, such as `tenant.provisioned`.
        kind as "type": String,
        /// What happened, without personal data.
        data: Json,
        /// Personal data under the tenant's key.
        sealed: Option<String>,
        /// The operation that caused it.
        operation_id: Option<String>,
        /// When it was made.
        at: Stamp,
    }
}
