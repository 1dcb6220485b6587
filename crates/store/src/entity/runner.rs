//! The leader's epoch, and the keyring that belongs to this registry.

use crate::table::table;

table! {
    /// The only row.
    Model = "runner" ("id") {
        /// Always 1.
        id: i32,
        /// Raised by each executor that takes over; commits of earlier ones are refused.
        epoch: i64,
        /// The fingerprint of the keyring that this registry was made with.
        keyring: Option<String>,
    }
}
