//! Subscriptions, kept by the built-in billing provider.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "subscriptions")]
pub struct Model {
    /// Its id, `sub_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Whose.
    pub tenant_id: String,
    /// Who pays.
    pub customer_id: String,
    /// The plan's name.
    pub plan: String,
    /// `monthly` or `yearly`.
    pub billing_cycle: String,
    /// `active` or `cancelled`.
    pub state: String,
    /// The billing resource's generation: an older one must not bill.
    pub generation: i64,
    /// Price of a period in the currency's minor unit.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// Start of the current period.
    pub current_period_start: Stamp,
    /// Its end.
    pub current_period_end: Stamp,
    /// When.
    pub created_at: Stamp,
    /// When it was cancelled.
    pub cancelled_at: Option<Stamp>,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
