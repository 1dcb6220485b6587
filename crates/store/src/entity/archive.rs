//! Archives of what tenants have. Their files lie on the shelf, under their ids.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// An archive.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "archives")]
pub struct Model {
    /// Its id, `arc_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Whose it is.
    pub tenant_id: String,
    /// The operation that made it.
    pub operation_id: String,
    /// `export`, `backup` or `import`.
    pub purpose: String,
    /// Its length in bytes, clear.
    pub size: i64,
    /// SHA-256 of those, in hexadecimal.
    pub sha256: String,
    /// What is in it and what is not, without its files.
    pub content: Json,
    /// What was proven of it; null if nothing was.
    pub verified: Option<Json>,
    /// When it was made.
    pub created_at: Stamp,
    /// When it goes.
    pub expires_at: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
