//! Certificates of deletion, each chained to the one before it.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "certificates")]
pub struct Model {
    /// Its id, `cert_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Its place in the chain, from 1 on.
    pub seq: i64,
    /// Whose deletion it proves.
    pub tenant_id: String,
    /// The certificate as JSON, byte for byte as it was signed.
    pub certificate: String,
    /// Ed25519 over it, base64url.
    pub signature: String,
    /// SHA-256 of it, hexadecimal: the next one names it.
    pub hash: String,
    /// When it was issued.
    pub at: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
