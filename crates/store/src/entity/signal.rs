//! Signals to operations, committed before they are applied.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A signal.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "signals")]
pub struct Model {
    /// Its id, `sig_…`; the order in which it is applied.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// To whom.
    pub operation_id: String,
    /// What is asked: the engine's `SignalKind`.
    #[sea_orm(column_type = "JsonBinary")]
    pub signal: Json,
    /// Who asked: an id.
    pub by: String,
    /// When.
    pub at: Stamp,
    /// Whether the operation has taken it up.
    pub applied: bool,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
