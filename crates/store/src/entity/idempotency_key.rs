//! Answers given for an `Idempotency-Key`, committed with what they answer for.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// An answered key.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "idempotency_keys")]
pub struct Model {
    /// Who sent it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub principal: String,
    /// SHA-256 of the key.
    #[sea_orm(primary_key, auto_increment = false)]
    pub key_hash: String,
    /// SHA-256 of the request, to tell a repetition from a reuse.
    pub body_hash: String,
    /// Ids of what was made, from which the answer is made again.
    #[sea_orm(column_type = "JsonBinary")]
    pub answer: Json,
    /// The tenant it made.
    pub tenant_id: Option<String>,
    /// When.
    pub created_at: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
