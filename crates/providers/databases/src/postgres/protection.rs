//! How a provider keeps tenants apart in tables that they share: what it adds to migrations, and what it rejects in
//! them.

use async_trait::async_trait;
use tenantry_model::Failure;
use tenantry_postgres::Session;

use crate::tables::Catalogue;

/// The protection of a schema's tables.
#[async_trait]
pub trait Protection: Send + Sync {
    /// Rewrites a statement for a schema before it runs.
    fn prepare(&self, sql: &str, schema: &str) -> String;

    /// Statements that protect the tables, run after each migration in the same transaction.
    fn protect(&self, catalogue: &Catalogue) -> String;

    /// A sentence for each object in the schema that bypasses the protection. What is found after a migration rolls it
    /// back.
    async fn bypasses(&self, connection: &mut Session, schema: &str) -> Result<Vec<String>, Failure>;

    /// A sentence for each object in the schema that could stop the removal of a tenant's rows. A later file may correct
    /// it. Runs in a transaction.
    async fn vetoes(&self, transaction: &mut Session, schema: &str) -> Result<Vec<String>, Failure>;
}
