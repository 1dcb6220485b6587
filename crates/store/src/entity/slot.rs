//! Slots of capacity: how much of a kind a region has, one row for each slot that was ever taken.

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
        /// The tenant that has it; null when it is free again.
        tenant_id: Option<String>,
        /// End of the reservation; null once it is in use.
        reserved_until: Option<Stamp>,
    }
}
