//! What the shared tables add to migrations and reject in them.

use async_trait::async_trait;
use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::guard::{BYPASSES, Groups};
use super::{partitions, vetoes};
use crate::postgres::{Protection, failure};
use crate::tables::Catalogue;

/// The protection of the shared tables.
pub struct SharedTables<'a> {
    pub groups: &'a Groups,
    /// Number of partitions of a new table; 0: tables are not partitioned.
    pub partitions: u16,
}

#[async_trait]
impl Protection for SharedTables<'_> {
    fn prepare(&self, sql: &str, schema: &str) -> String {
        partitions::partitioned(sql, self.partitions, schema)
    }

    fn protect(&self, catalogue: &Catalogue) -> String {
        self.groups.protect(catalogue)
    }

    async fn bypasses(&self, connection: &mut Session, schema: &str) -> Result<Vec<String>, Failure> {
        connection.all(BYPASSES, &[&schema]).await.map_err(failure)
    }

    async fn vetoes(&self, transaction: &mut Session, schema: &str) -> Result<Vec<String>, Failure> {
        vetoes::faults(transaction, schema).await
    }
}
