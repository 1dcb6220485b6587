//! Flags and settings of tenants, kept by the built-in config provider.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A tenant's configuration.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "configs")]
pub struct Model {
    /// Whose.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: String,
    /// `tenant.{id}`.
    pub namespace: String,
    /// The config resource.
    pub resource_id: String,
    /// Feature flags.
    #[sea_orm(column_type = "JsonBinary")]
    pub flags: Json,
    /// Settings.
    #[sea_orm(column_type = "JsonBinary")]
    pub settings: Json,
    /// When it last changed.
    pub updated_at: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
