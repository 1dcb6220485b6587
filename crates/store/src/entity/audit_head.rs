//! Signed heads of the audit chain.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A signed head.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "audit_heads")]
pub struct Model {
    /// The last record that it covers.
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i64,
    /// That record's hash.
    pub hash: String,
    /// Ed25519 over number, hash and instant, base64url.
    pub signature: String,
    /// When it was signed.
    pub at: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
