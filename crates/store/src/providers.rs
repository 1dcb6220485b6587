//! What providers may read: rows of any table by equality. They write through the step's own batch.

use async_trait::async_trait;
use serde_json::Value;
use tenantry_model::Failure;
use tenantry_provider::Rows;

use super::{SCHEMA, Store};

#[async_trait]
impl Rows for Store {
    async fn find(
        &self,
        table: &'static str,
        equal: &[(&'static str, Value)],
    ) -> Result<Vec<Value>, Failure> {
        let unknown = || Failure::fatal("no_such_table", format!("there is no table {table}"));
        let (_, found) = SCHEMA.table(table).ok_or_else(unknown)?;
        found
            .find(self.reads(), equal)
            .await
            .map_err(|error| Failure::retryable("registry_unavailable", error))
    }
}
