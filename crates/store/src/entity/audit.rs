//! Audit records: who did what. Chained by hash and signed by the sealer; never changed afterwards.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An audit record.
    Model = "audit" ("id") {
        /// Its id, `aud_…`.
        id: String,
        /// ResourceFolder in the chain; null until sealed.
        seq: Option<i64>,
        /// The tenant that it concerns.
        tenant_id: Option<String>,
        /// The actor: an id, never a name.
        actor: String,
        /// What was done.
        action: String,
        /// To what.
        target: String,
        /// Particulars, without personal data.
        data: Json,
        /// Personal data under the tenant's key.
        sealed: Option<String>,
        /// The request that caused it.
        request_id: Option<String>,
        /// When it was made.
        at: Stamp,
        /// Hash of the record before and this one, hexadecimal.
        hash: Option<String>,
    }
}
