//! One-time sign-in codes, by hash.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A code.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "sign_in_codes")]
pub struct Model {
    /// SHA-256 of the code.
    #[sea_orm(primary_key, auto_increment = false)]
    pub hash: String,
    /// Whose.
    pub tenant_id: String,
    /// Who signs in with it.
    pub member_id: String,
    /// What it is for, such as `smoke_test`.
    pub purpose: String,
    /// When it ends.
    pub expires_at: Stamp,
    /// When it was used.
    pub used_at: Option<Stamp>,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
