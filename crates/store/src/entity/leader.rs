//! The row of the table `leader`: the leader's epoch, and the keyring that belongs to this registry.

use crate::table::table;

table! {
    /// The only row.
    Model = "leader" ("id") {
        /// Always 1.
        id: i32,
        /// Incremented by each process that takes over as leader; commits with an earlier epoch are rejected.
        epoch: i64,
        /// Fingerprint of the keyring that this registry was created with.
        keyring: Option<String>,
    }
}
