//! Access to one tenant's rows. Every statement has the tenant's id as a parameter; table and column names
//! come from the catalogue, never from the request.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::params;
use serde_json::{Map, Value};
use tenantry_model::{Failure, TenantId};

use super::OpenDatabase;
use super::catalogue::as_json;
use super::client::{first, query};
use super::writer::Work;
use crate::tables::{OWNER, Table, check_limit, check_writable, quoted, sample_in_use};
use tenantry_provider::data::{Page, TenantRows};

/// Locates tenants' files.
#[async_trait]
pub trait LocateFile: Send + Sync + 'static {
    /// Returns the tenant's open file.
    async fn open(&self, tenant: TenantId) -> Result<Arc<OpenDatabase>, Failure>;
}

/// Handle on one tenant's rows.
pub struct SqliteRows<H> {
    /// Where the rows are.
    pub location: Arc<H>,
    /// The tenant.
    pub tenant: TenantId,
}

#[async_trait]
impl<H: LocateFile> TenantRows for SqliteRows<H> {
    async fn insert(&self, name: &str, mut row: Map<String, Value>) -> Result<Value, Failure> {
        let open = self.location.open(self.tenant).await?;
        let (name, table) = open.catalogue.addressable(name)?;
        check_writable(name, table)?;
        table.name_row(&mut row);
        let columns: Vec<String> =
            table.given(name, &row)?.into_iter().map(|column| quoted(&column.name)).collect();
        let parameters: Vec<String> = (2..columns.len() + 2).map(|i| format!("?{i}")).collect();
        // A removed tenant must not get rows while its last tokens are valid.
        let sql = format!(
            "INSERT INTO {} ({}) SELECT {} WHERE EXISTS (SELECT 1 FROM _tenants WHERE tenant_id = ?1) RETURNING {}",
            quoted(name),
            std::iter::once(OWNER.to_owned()).chain(columns).collect::<Vec<_>>().join(", "),
            std::iter::once("?1".to_owned()).chain(parameters).collect::<Vec<_>>().join(", "),
            as_json(table),
        );
        let values = row.into_iter().map(|(_, value)| value).collect();
        open.writer.run(Work::Insert { tenant: self.tenant.to_string(), sql, values }).await
    }

    async fn list(&self, name: &str, limit: u32, after: Option<&str>) -> Result<Page, Failure> {
        let open = self.location.open(self.tenant).await?;
        let (name, table) = open.catalogue.addressable(name)?;
        check_limit(limit)?;
        let sql = format!(
            "SELECT id, {} FROM {} WHERE {} AND (?2 IS NULL OR id > ?2) ORDER BY id LIMIT ?3",
            as_json(table),
            quoted(name),
            is_own(table),
        );
        let (tenant, after) = (self.tenant.to_string(), after.map(str::to_owned));
        let found: Vec<(String, String)> = open
            .read(move |connection| {
                let values = params![tenant, after, i64::from(limit) + 1];
                query(connection, &sql, values, |row| Ok((row.get(0)?, row.get(1)?)))
            })
            .await?;
        let more = found.len() > limit as usize;
        let kept = found.get(..limit as usize).unwrap_or(&found);
        let rows = kept.iter().map(|(_, row)| parsed(row)).collect::<Result<_, _>>()?;
        Ok(Page { rows, next: kept.last().filter(|_| more).map(|(id, _)| id.clone()) })
    }

    async fn get(&self, name: &str, id: &str) -> Result<Option<Value>, Failure> {
        let open = self.location.open(self.tenant).await?;
        let (name, table) = open.catalogue.addressable(name)?;
        let sql =
            format!("SELECT {} FROM {} WHERE {} AND id = ?2", as_json(table), quoted(name), is_own(table));
        let values = [self.tenant.to_string(), id.to_owned()];
        let found: Option<String> =
            open.read(move |connection| first(connection, &sql, values, |row| row.get(0))).await?;
        found.as_deref().map(parsed).transpose()
    }

    async fn delete(&self, name: &str, id: &str) -> Result<bool, Failure> {
        let open = self.location.open(self.tenant).await?;
        let (name, table) = open.catalogue.addressable(name)?;
        check_writable(name, table)?;
        let work =
            Work::Delete { tenant: self.tenant.to_string(), table: name.to_owned(), id: id.to_owned() };
        Ok(open.writer.run(work).await? == Value::Bool(true))
    }

    async fn remove_samples(&self) -> Result<Value, Failure> {
        let open = self.location.open(self.tenant).await?;
        open.writer.run(Work::RemoveSamples { tenant: self.tenant.to_string() }).await.map_err(sample_in_use)
    }
}

/// SQL condition that a row is the tenant's, whose id is the parameter `?1`, or one of all tenants.
fn is_own(table: &Table) -> &'static str {
    if table.is_lookup { "?1 IS NOT NULL" } else { "tenant_id = ?1" }
}

/// A row that SQLite wrote as JSON.
pub fn parsed(row: &str) -> Result<Value, Failure> {
    serde_json::from_str(row)
        .map_err(|_| Failure::fatal("database", "the database returned a row that is not JSON"))
}
