//! Credentials that wait to be handed out once (design §5, Secrets).

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A credential.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "credentials")]
pub struct Model {
    /// The operation that made it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub operation_id: String,
    /// What it is.
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    /// Whose it is.
    pub tenant_id: String,
    /// The secret under the tenant's key; null once claimed.
    pub sealed: Option<String>,
    /// When it was made.
    pub created_at: Stamp,
    /// When it was handed out.
    pub claimed_at: Option<Stamp>,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
