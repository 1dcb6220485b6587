//! Audit records: who did what. Chained by hash and signed by the sealer; never changed afterwards.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// An audit record.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "audit")]
pub struct Model {
    /// Its id, `aud_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Place in the chain; null until sealed.
    pub seq: Option<i64>,
    /// Whom it concerns.
    pub tenant_id: Option<String>,
    /// Who: an id, never a name.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub target: String,
    /// Particulars, without personal data.
    #[sea_orm(column_type = "JsonBinary")]
    pub data: Json,
    /// Personal data under the tenant's key.
    pub sealed: Option<String>,
    /// The request that caused it.
    pub request_id: Option<String>,
    /// When.
    pub at: Stamp,
    /// Hash of the record before and this one, hexadecimal.
    pub hash: Option<String>,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
