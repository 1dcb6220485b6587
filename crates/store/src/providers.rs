//! Read access of providers to the registry: rows of any table, selected by equality of columns. Providers write by
//! returning rows, which are committed with the end of their step.

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tenantry_model::{Failure, TenantId};
use tenantry_provider::Rows;

use super::table::Record;

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

/// The tenant's rows of a table, read as a provider reads them.
pub async fn rows_of<R: Record + DeserializeOwned>(
    rows: &dyn Rows,
    tenant: TenantId,
) -> Result<Vec<R>, Failure> {
    let found = rows.find(R::TABLE, &[("tenant_id", json!(tenant))]).await?;
    let read = found.into_iter().map(serde_json::from_value);
    // The parser's error is dropped: it may quote personal data.
    read.collect::<Result<_, _>>().map_err(|_| {
        let why =
            format!("a row of the table {} cannot be read; restore the registry from a backup", R::TABLE);
        Failure::fatal("bad_ledger", why)
    })
}
