//! Events: facts, written in the transaction that made them true. The sealer numbers them afterwards.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "events")]
pub struct Model {
    /// Its id, `evt_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Place in the order of facts; null until sealed.
    pub seq: Option<i64>,
    /// Whom it concerns.
    pub tenant_id: Option<String>,
    /// Dotted name, such as `tenant.provisioned`.
    #[serde(rename = "type")]
    #[sea_orm(column_name = "type")]
    pub kind: String,
    /// What happened, without personal data.
    #[sea_orm(column_type = "JsonBinary")]
    pub data: Json,
    /// Personal data under the tenant's key.
    pub sealed: Option<String>,
    /// The operation that caused it.
    pub operation_id: Option<String>,
    /// When.
    pub at: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
