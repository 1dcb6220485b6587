//! The one active executor's generation, and the keyring that belongs to this registry.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// The only row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "runner")]
pub struct Model {
    /// Always 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// Raised by each executor that takes over; commits of earlier ones are refused.
    pub epoch: i64,
    /// The fingerprint of the keyring that this registry was made with.
    pub keyring: Option<String>,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
