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
