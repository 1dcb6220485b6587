//! Former secrets that are still good, because a rotation has let them be for a while.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A former secret.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "rotations")]
pub struct Model {
    /// The operation that made the one after it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub operation_id: String,
    /// The resource that it leads to.
    #[sea_orm(primary_key, auto_increment = false)]
    pub resource_id: String,
    /// Whose it is.
    pub tenant_id: String,
    /// When it ends.
    pub until: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
