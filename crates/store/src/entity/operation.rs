//! Operations: the ledger's row for one long-running change of one tenant.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "operations")]
pub struct Model {
    /// Its id, `op_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Whom it changes: the engine's subject.
    pub tenant_id: String,
    /// The use case, such as `onboard`.
    pub kind: String,
    /// The operation whose detached step this is.
    pub parent_id: Option<String>,
    /// A word of `OperationState`.
    pub state: String,
    /// Raised by every commit; compare-and-set.
    pub version: i64,
    /// The executor generation that owns it.
    pub epoch: i64,
    /// What the use case needs again after a restart.
    #[sea_orm(column_type = "JsonBinary")]
    pub input: Json,
    /// What stopped it.
    #[sea_orm(column_type = "JsonBinary")]
    pub error: Option<Json>,
    /// The step that stopped it.
    pub error_step: Option<String>,
    /// Whether somebody asked to end it.
    pub cancelled: bool,
    /// When it began.
    pub created_at: Stamp,
    /// When it last changed.
    pub updated_at: Stamp,
    /// When it reached a final state.
    pub finished_at: Option<Stamp>,
    /// Later than this it counts as stuck (S0.15).
    pub expected_by: Option<Stamp>,
    /// Whether that alert was raised.
    pub stuck: bool,
    /// Its next timer.
    pub wake_at: Option<Stamp>,
    /// Whether no attempt runs.
    pub idle: bool,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
