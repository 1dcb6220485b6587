//! Customers, kept by the built-in billing provider.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "customers")]
pub struct Model {
    /// Its id, `cus_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Which tenant pays.
    pub tenant_id: String,
    /// The billing resource.
    pub resource_id: String,
    /// Who gets the invoices, under the tenant's key.
    pub sealed: Option<String>,
    /// ISO 4217.
    pub currency: String,
    /// When.
    pub created_at: Stamp,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
