//! Rows of the table `slots`: the slots of each region and resource kind that were ever taken.

use crate::Stamp;
use crate::table::table;

table! {
    /// A slot.
    Model = "slots" ("region", "kind", "slot") {
        /// Region.
        region: String,
        /// Resource kind.
        kind: String,
        /// Slot number, from 1 on.
        slot: i64,
        /// The tenant that has the slot; null when the slot is free again.
        tenant_id: Option<String>,
        /// End of the reservation; null once the slot is in use.
        reserved_until: Option<Stamp>,
    }
}
