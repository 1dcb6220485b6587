//! One tenant's rows. Every statement has the tenant as a parameter; table and column names come out of the
//! catalogue, never out of the request.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use sqlx::AssertSqlSafe;
use tenantry_model::{Failure, TenantId};
use uuid::Uuid;

use super::Open;
use super::catalogue::{Catalogue, OWNER, Table, quoted};
use super::client::failure;
use super::writer::Work;
use crate::data::{MAX_PAGE, Page, TenantRows};

/// Knows in which file a tenant's rows are.
#[async_trait]
pub trait Home: Send + Sync + 'static {
    /// That file, open.
    async fn open(&self, tenant: TenantId) -> Result<Arc<Open>, Failure>;
}

/// The handle on one tenant's rows.
pub struct Scoped<H> {
    /// Where they are.
    pub home: Arc<H>,
    /// Whose they are.
    pub tenant: TenantId,
}

/// The table of this name; it must have an `id`, by which rows are addressed.
fn table<'a>(catalogue: &'a Catalogue, name: &str) -> Result<(&'a str, &'a Table), Failure> {
    match catalogue.tables.get_key_value(name) {
        Some((name, table)) if table.column("id").is_some() => Ok((name, table)),
        _ => {
            let names: Vec<&str> = catalogue.tables.keys().map(String::as_str).collect();
            Err(Failure::invalid(
                "unknown_table",
                format!("there is no such table; there are: {}", names.join(", ")),
            ))
        }
    }
}

#[async_trait]
impl<H: Home> TenantRows for Scoped<H> {
    async fn insert(&self, name: &str, mut row: Map<String, Value>) -> Result<Value, Failure> {
        let open = self.home.open(self.tenant).await?;
        let (name, table) = table(&open.catalogue, name)?;
        if row.contains_key(OWNER) {
            return Err(Failure::invalid(
                "not_allowed",
                format!("`{OWNER}` cannot be given: it comes from the token"),
            ));
        }
        let id = table.column("id").filter(|id| id.kind == "TEXT");
        if id.is_some() && !row.contains_key("id") {
            row.insert("id".to_owned(), Uuid::now_v7().to_string().into());
        }
        let mut columns = Vec::with_capacity(row.len());
        for given in row.keys() {
            match table.column(given) {
                Some(column) if !column.generated => columns.push(quoted(&column.name)),
                _ => {
                    let names: Vec<&str> =
                        table.columns.iter().filter(|c| !c.generated).map(|c| c.name.as_str()).collect();
                    let given: String = given.chars().filter(|c| !c.is_control()).take(64).collect();
                    return Err(Failure::invalid(
                        "unknown_column",
                        format!("`{given}` is not a column of `{name}`; it has: {}", names.join(", ")),
                    ));
                }
            }
        }
        let parameters: Vec<String> = (2..columns.len() + 2).map(|i| format!("?{i}")).collect();
        // A tenant that is gone must not get rows again while its last tokens live.
        let sql = format!(
            "INSERT INTO {} ({}) SELECT {} WHERE EXISTS (SELECT 1 FROM _tenants WHERE tenant_id = ?1) RETURNING {}",
            quoted(name),
            std::iter::once(OWNER.to_owned()).chain(columns).collect::<Vec<_>>().join(", "),
            std::iter::once("?1".to_owned()).chain(parameters).collect::<Vec<_>>().join(", "),
            table.as_json(),
        );
        let values = row.into_iter().map(|(_, value)| value).collect();
        open.writer.run(Work::Insert { tenant: self.tenant.to_string(), sql, values }).await
    }

    async fn list(&self, name: &str, limit: u32, after: Option<&str>) -> Result<Page, Failure> {
        let open = self.home.open(self.tenant).await?;
        let (name, table) = table(&open.catalogue, name)?;
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Failure::invalid("bad_limit", format!("`limit` must be from 1 to {MAX_PAGE}")));
        }
        let sql = format!(
            "SELECT id, {} FROM {} WHERE tenant_id = ?1 AND (?2 IS NULL OR id > ?2) ORDER BY id LIMIT ?3",
            table.as_json(),
            quoted(name),
        );
        let found: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(self.tenant.to_string())
            .bind(after)
            .bind(i64::from(limit) + 1)
            .fetch_all(&open.reads)
            .await
            .map_err(failure)?;
        let more = found.len() > limit as usize;
        let kept = found.get(..limit as usize).unwrap_or(&found);
        let rows = kept.iter().map(|(_, row)| parsed(row)).collect::<Result<_, _>>()?;
        Ok(Page { rows, next: kept.last().filter(|_| more).map(|(id, _)| id.clone()) })
    }

    async fn get(&self, name: &str, id: &str) -> Result<Option<Value>, Failure> {
        let open = self.home.open(self.tenant).await?;
        let (name, table) = table(&open.catalogue, name)?;
        let sql =
            format!("SELECT {} FROM {} WHERE tenant_id = ?1 AND id = ?2", table.as_json(), quoted(name));
        let found: Option<String> = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(self.tenant.to_string())
            .bind(id)
            .fetch_optional(&open.reads)
            .await
            .map_err(failure)?;
        found.as_deref().map(parsed).transpose()
    }

    async fn delete(&self, name: &str, id: &str) -> Result<bool, Failure> {
        let open = self.home.open(self.tenant).await?;
        let (name, _) = table(&open.catalogue, name)?;
        let work =
            Work::Delete { tenant: self.tenant.to_string(), table: name.to_owned(), id: id.to_owned() };
        Ok(open.writer.run(work).await? == Value::Bool(true))
    }

    async fn remove_samples(&self) -> Result<Value, Failure> {
        let open = self.home.open(self.tenant).await?;
        open.writer.run(Work::RemoveSamples { tenant: self.tenant.to_string() }).await.map_err(|failure| {
            match failure.code.as_str() {
                "constraint" => Failure::invalid(
                    "sample_in_use",
                    "a sample is in use by a row that is not a sample: remove that first",
                ),
                _ => failure,
            }
        })
    }
}

fn parsed(row: &str) -> Result<Value, Failure> {
    serde_json::from_str(row)
        .map_err(|_| Failure::fatal("database", "the database returned a row that is not JSON"))
}
