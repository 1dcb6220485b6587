//! Access to one tenant's rows through a handle scoped to it. The tenant comes from a verified token; table
//! and column names are checked against the database's catalogue, so that no input of a caller becomes SQL.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tenantry_model::{Failure, TenantId};

/// Most rows in one page.
pub const MAX_PAGE: u32 = 100;

/// A provider that stores tenants' rows.
#[async_trait]
pub trait Data: Send + Sync {
    /// A handle on one tenant's rows. Cheap: the database is accessed only by the handle's methods.
    fn scoped(&self, tenant: TenantId) -> Arc<dyn TenantRows>;

    /// A row under a reserved tenant id, stored beside tenants' rows at setup. The smoke test proves with it
    /// that a tenant does not see rows of other tenants.
    fn canary(&self) -> Canary;
}

/// One tenant's rows. Failures of class `Invalid` are errors of the caller and name the table or column.
#[async_trait]
pub trait TenantRows: Send + Sync {
    /// Inserts a row and returns it as stored. A row without an `id` gets a new one.
    async fn insert(&self, table: &str, row: Map<String, Value>) -> Result<Value, Failure>;

    /// Up to `limit` rows (1 to [`MAX_PAGE`]) in the order of their ids, starting after the id `after`.
    async fn list(&self, table: &str, limit: u32, after: Option<&str>) -> Result<Page, Failure>;

    /// The row with this id.
    async fn get(&self, table: &str, id: &str) -> Result<Option<Value>, Failure>;

    /// Deletes the row with this id; false if it does not exist.
    async fn delete(&self, table: &str, id: &str) -> Result<bool, Failure>;

    /// Deletes all rows marked as samples and counts them by table.
    async fn remove_samples(&self) -> Result<Value, Failure>;
}

/// One page of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Rows in the order of their ids, without `tenant_id`.
    pub rows: Vec<Value>,
    /// The id after which the next page starts; none on the last page.
    pub next: Option<String>,
}

/// The row under the reserved tenant id.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    /// The reserved tenant id, which no tenant has.
    pub tenant: TenantId,
    /// Table of the row.
    pub table: String,
    /// Id of the row.
    pub id: String,
    /// The row. The smoke test writes a copy of it under another id.
    pub row: Map<String, Value>,
}
