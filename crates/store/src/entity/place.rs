//! Places: how much of a kind a region has, one row for each that was ever taken.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A place.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "places")]
pub struct Model {
    /// Where.
    #[sea_orm(primary_key, auto_increment = false)]
    pub region: String,
    /// For what kind of resource.
    #[sea_orm(primary_key, auto_increment = false)]
    pub kind: String,
    /// Which one, from 1 on.
    #[sea_orm(primary_key, auto_increment = false)]
    pub place: i64,
    /// Who has it; null when it is free again.
    pub tenant_id: Option<String>,
    /// Until when it is only reserved; null once it is in use.
    pub reserved_until: Option<Stamp>,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
