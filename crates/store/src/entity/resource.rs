//! Resources: what tenants own outside the registry. The row is there before the thing (T1, T11).

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "resources")]
pub struct Model {
    /// Its id, `res_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Whose it is.
    pub tenant_id: String,
    /// What it is.
    pub kind: String,
    /// Who made it.
    pub provider: String,
    /// The step that makes it.
    pub step_key: String,
    /// External name; one owner per provider while it stands (T2).
    pub name: String,
    /// The owner mark on the thing.
    pub claim: String,
    /// Raised whenever it is made anew.
    pub generation: i64,
    /// `creating`, `present`, `removing` or `absent`.
    pub state: String,
    /// What others may know of it.
    #[sea_orm(column_type = "JsonBinary")]
    pub outputs: Json,
    /// The operation that changed it last.
    pub operation_id: String,
    /// When it was first intended.
    pub created_at: Stamp,
    /// When it last changed.
    pub updated_at: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
