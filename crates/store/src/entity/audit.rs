//! Rows of the table `audit`: records of an actor's actions. The sealer chains them by hash and signs the
//! chain; after that they never change.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An audit record.
    Model = "audit" ("id") {
        /// Id, `aud_…`.
        id: String,
        /// Position in the chain; null until sealed.
        seq: Option<i64>,
        /// The tenant that was affected.
        tenant_id: Option<String>,
        /// Id of the actor, never a name.
        actor: String,
        /// Action, such as `tenant.create`.
        action: String,
        /// Id of the object of the action.
        target: String,
        /// Details, without personal data.
        data: Json,
        /// Personal data, encrypted with the tenant's key.
        sealed: Option<String>,
        /// Id of the API request.
        request_id: Option<String>,
        /// Time of creation.
        at: Stamp,
        /// Hash over the previous record's hash and this record, in hexadecimal.
        hash: Option<String>,
    }
}
