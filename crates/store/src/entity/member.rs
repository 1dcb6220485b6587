//! Members: people of a tenant, kept by the built-in identity provider.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "members")]
pub struct Model {
    /// Its id, `usr_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Whose member.
    pub tenant_id: String,
    /// The identity resource.
    pub resource_id: String,
    /// HMAC of the address: finds a person without knowing one.
    pub email_mac: String,
    /// Address and names under the tenant's key.
    pub sealed: String,
    /// Role in the tenant.
    pub role: String,
    /// `invited` or `active`.
    pub state: String,
    /// Hash of the password, if one is set.
    pub password_hash: Option<String>,
    /// Whether the password is temporary.
    pub must_change_password: bool,
    /// When.
    pub created_at: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
