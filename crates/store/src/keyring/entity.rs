//! The keyring's tables.

/// Keys of tenants.
pub mod tenant_key {
    use crate::Stamp;
    use crate::table::table;

    table! {
        /// A tenant's key.
        Model = "tenant_keys" ("tenant_id") {
            /// Its tenant.
            tenant_id: String,
            /// The key under the master key; null once destroyed.
            wrapped: Option<String>,
            /// When it was made.
            created_at: Stamp,
            /// When it was destroyed.
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
            /// The tenant.
            tenant_id: String,
            /// The caller that asked for it: an id.
            requested_by: String,
            /// Why.
            reason: String,
            /// When it was made.
            at: Stamp,
            /// Whether the key is not destroyed yet: its deletion has begun, and archives are kept that it opens.
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
            /// Its name.
            name: String,
            /// The secret under the master key.
            wrapped: String,
            /// When it was made.
            created_at: Stamp,
        }
    }
}
