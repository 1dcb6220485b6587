//! Invoices, kept by the built-in billing provider. One per subscription and period.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// An invoice.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "invoices")]
pub struct Model {
    /// Its id, `in_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Whose.
    pub tenant_id: String,
    /// For what.
    pub subscription_id: String,
    /// Number on the invoice.
    pub number: String,
    /// Total in the currency's minor unit.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// Its lines.
    #[sea_orm(column_type = "JsonBinary")]
    pub lines: Json,
    /// Start of the period.
    pub period_start: Stamp,
    /// End of the period.
    pub period_end: Stamp,
    /// `open`, `paid` or `void`.
    pub state: String,
    /// When.
    pub issued_at: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
