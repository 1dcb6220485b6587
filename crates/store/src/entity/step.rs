//! Steps: the units of an operation, the plan and how far each has come.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "steps")]
pub struct Model {
    /// Its operation.
    #[sea_orm(primary_key, auto_increment = false)]
    pub operation_id: String,
    /// Its name in the plan.
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: String,
    /// Place in the plan, for people.
    pub position: i32,
    /// What it works on.
    pub kind: String,
    /// Who does it.
    pub provider: String,
    /// Keys of the steps before it.
    #[sea_orm(column_type = "JsonBinary")]
    pub needs: Json,
    /// How it is tried.
    #[sea_orm(column_type = "JsonBinary")]
    pub policy: Json,
    /// What its code needs, frozen with the plan.
    #[sea_orm(column_type = "JsonBinary")]
    pub input: Json,
    /// A word of `StepState`.
    pub state: String,
    /// Attempts begun in the current direction.
    pub attempts: i32,
    /// Attempts cut off by the end of a process.
    pub interruptions: i32,
    /// Not before this.
    pub due_at: Option<Stamp>,
    /// First start.
    pub started_at: Option<Stamp>,
    /// End.
    pub finished_at: Option<Stamp>,
    /// What it gave.
    #[sea_orm(column_type = "JsonBinary")]
    pub output: Json,
    /// Its latest failure.
    #[sea_orm(column_type = "JsonBinary")]
    pub error: Option<Json>,
    /// Whether an attempt may have left something unseen.
    pub uncertain: bool,
    /// What a running attempt noted of itself.
    #[sea_orm(column_type = "JsonBinary")]
    pub note: Option<Json>,
    /// The operation that a detached step started.
    pub child_id: Option<String>,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
