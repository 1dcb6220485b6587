//! API keys, by hash: the key itself is shown once.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// An API key.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "api_keys")]
pub struct Model {
    /// Its id, `key_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// SHA-256 of the key.
    pub hash: String,
    /// What people call it.
    pub name: String,
    /// What it may do.
    #[sea_orm(column_type = "JsonBinary")]
    pub scopes: Json,
    /// The only tenant it sees, if it is a tenant key.
    pub tenant_id: Option<String>,
    /// When it was made.
    pub created_at: Stamp,
    /// When it ends.
    pub expires_at: Option<Stamp>,
    /// When it was revoked.
    pub revoked_at: Option<Stamp>,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
