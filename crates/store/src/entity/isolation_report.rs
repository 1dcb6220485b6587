//! Reports of the isolation check. The newest ones are kept.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "isolation_reports")]
pub struct Model {
    /// Its id, `iso_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The report as JSON, byte for byte as it was signed.
    pub report: String,
    /// Ed25519 over it, base64url.
    pub signature: String,
    /// When it was made.
    pub at: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
