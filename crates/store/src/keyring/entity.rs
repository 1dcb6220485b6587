//! The keyring's tables.

/// Keys of tenants.
pub mod tenant_key {
    use crate::Stamp;
    use crate::table::table;

    table! {
        /// A tenant's key.
        Model = "tenant_keys" ("tenant_id") {
            /// Tenant of the key.
            tenant_id: String,
            /// The key, encrypted with the master key; null once destroyed.
            wrapped: Option<String>,
            /// Time of creation.
            created_at: Stamp,
            /// Time of destruction.
            destroyed_at: Option<Stamp>,
        }
    }
}

/// The journal of erasures.
pub mod erasure {
    use crate::Stamp;
    use crate::table::table;

    table! {
        /// An erasure.
        Model = "erasures" ("tenant_id") {
            /// The erased tenant.
            tenant_id: String,
            /// Id of the caller that requested the erasure.
            requested_by: String,
            /// Reason, in the words of the request.
            reason: String,
            /// Time of the erasure.
            at: Stamp,
            /// Whether the key still exists, because archives that need it are retained.
            key_kept: bool,
        }
    }
}

/// The installation's own secrets: the pepper and the signing keys.
pub mod secret {
    use crate::Stamp;
    use crate::table::table;

    table! {
        /// A secret.
        Model = "secrets" ("name") {
            /// Name of the secret.
            name: String,
            /// The secret, encrypted with the master key.
            wrapped: String,
            /// Time of creation.
            created_at: Stamp,
        }
    }
}

/// The anchor of the audit chain.
pub mod audit_anchor {
    use serde_json::Value as Json;

    use crate::Stamp;
    use crate::table::table;

    table! {
        /// The only row: the last record that the audit chain has once the pending records are sealed.
        Model = "audit_anchor" ("id") {
            /// Always 1.
            id: i32,
            /// Number of the record.
            seq: i64,
            /// Hash of the record.
            hash: String,
            /// Ids of the records of the last batch, in the order of their numbers. The commit that seals them follows.
            pending: Json,
            /// Time of the batch.
            at: Stamp,
        }
    }
}

/// Cuts of the audit chain.
pub mod audit_cut {
    use crate::Stamp;
    use crate::table::table;

    table! {
        /// A cut: the anchor counted records that the registry did not have.
        Model = "audit_cuts" ("anchored_seq", "anchored_hash") {
            /// Number of the last record by the anchor.
            anchored_seq: i64,
            /// Hash of the last record by the anchor.
            anchored_hash: String,
            /// Time of the anchor.
            anchored_at: Stamp,
            /// Number of the last record in the registry.
            found_seq: i64,
            /// Time at which the cut was found.
            found_at: Stamp,
            /// Time at which an operator accepted the cut.
            accepted_at: Option<Stamp>,
            /// Reason, in the operator's words.
            accepted_reason: Option<String>,
        }
    }
}
