//! The keyring's tables.

/// Keys of tenants.
pub mod tenant_key {
    use sea_orm::entity::prelude::*;
    use serde::{Deserialize, Serialize};

    use crate::Stamp;

    /// A tenant's key.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
    #[sea_orm(table_name = "tenant_keys")]
    pub struct Model {
        /// Whose.
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: String,
        /// The key under the master key; null once destroyed.
        pub wrapped: Option<String>,
        /// When it was made.
        pub created_at: Stamp,
        /// When it was destroyed.
        pub destroyed_at: Option<Stamp>,
    }

    /// None.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The journal of erasures.
pub mod erasure {
    use sea_orm::entity::prelude::*;
    use serde::{Deserialize, Serialize};

    use crate::Stamp;

    /// An erasure.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
    #[sea_orm(table_name = "erasures")]
    pub struct Model {
        /// Who was erased.
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: String,
        /// Who asked for it: an id.
        pub requested_by: String,
        /// Why.
        pub reason: String,
        /// When.
        pub at: Stamp,
        /// Whether the key is not destroyed yet: its deletion has begun, and archives are kept that it opens.
        pub key_kept: bool,
    }

    /// None.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The installation's own secrets: the pepper and the signing keys.
pub mod secret {
    use sea_orm::entity::prelude::*;
    use serde::{Deserialize, Serialize};

    use crate::Stamp;

    /// A secret.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
    #[sea_orm(table_name = "secrets")]
    pub struct Model {
        /// Its name.
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        /// The secret under the master key.
        pub wrapped: String,
        /// When it was made.
        pub created_at: Stamp,
    }

    /// None.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
