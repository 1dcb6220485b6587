//! A tenant's own rows, through a handle that can reach no other tenant's. The tenant comes from a verified token;
//! table and column names are checked against what really exists, so nothing that a caller gives becomes SQL.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tenantry_model::{Failure, TenantId};

/// Most rows in one page.
pub const MAX_PAGE: u32 = 100;

/// A provider that keeps tenants' rows.
#[async_trait]
pub trait Data: Send + Sync {
    /// A handle on one tenant's rows. Cheap; no access happens before its methods are called.
    fn scoped(&self, tenant: TenantId) -> Arc<dyn TenantRows>;

    /// A row of a tenant that belongs to nobody. It stands beside the others from the set-up on, so that a smoke
    /// test can prove that it does not see it (S0.37).
    fn canary(&self) -> Canary;
}

/// One tenant's rows. Failures of class `Invalid` are the caller's and name the table or column.
#[async_trait]
pub trait TenantRows: Send + Sync {
    /// Adds a row and returns it as it is stored. Without an `id` it gets a fresh one.
    async fn insert(&self, table: &str, row: Map<String, Value>) -> Result<Value, Failure>;

    /// Up to `limit` rows (1 to [`MAX_PAGE`]) in the order of their ids, from the one after `after` on.
    async fn list(&self, table: &str, limit: u32, after: Option<&str>) -> Result<Page, Failure>;

    /// The row with this id.
    async fn get(&self, table: &str, id: &str) -> Result<Option<Value>, Failure>;

    /// Removes the row with this id; false if there is none.
    async fn delete(&self, table: &str, id: &str) -> Result<bool, Failure>;

    /// Removes every row that is marked as a sample (S2.28) and counts them by table.
    async fn remove_samples(&self) -> Result<Value, Failure>;
}

/// Some rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// In the order of their ids, without `tenant_id`.
    pub rows: Vec<Value>,
    /// The id after which the next page begins; none at the end.
    pub next: Option<String>,
}

/// The canary's row.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    /// The tenant that nobody is.
    pub tenant: TenantId,
    /// The row's table.
    pub table: String,
    /// The row's id.
    pub id: String,
    /// The row: a smoke test may write one like it, under another id.
    pub row: Map<String, Value>,
}
