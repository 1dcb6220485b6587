//! Invitations into a tenant, by hash of their token.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "invitations")]
pub struct Model {
    /// Its id, `inv_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Into which tenant.
    pub tenant_id: String,
    /// Who is invited.
    pub member_id: String,
    /// SHA-256 of the token.
    pub token_hash: String,
    /// The role offered.
    pub role: String,
    /// When it ends.
    pub expires_at: Stamp,
    /// When it was accepted.
    pub accepted_at: Option<Stamp>,
    /// When.
    pub created_at: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
