//! Access to one tenant's rows. Every statement runs in a transaction that acts as the tenant's role and has
//! the tenant's id as a parameter; table and column names come from the catalogue, never from the request.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tenantry_model::{Failure, TenantId};
use tenantry_postgres::{Pooled, Session, Transaction};

use super::failure::failure;
use crate::tables::{Catalogue, OWNER, Table, check_limit, literal, quoted, sample_in_use};
use tenantry_provider::data::{Page, TenantRows};

/// Locates tenants' rows.
#[async_trait]
pub trait LocateRows: Send + Sync + 'static {
    /// Begins a transaction that can reach this tenant's rows only, and returns it with the tables.
    async fn enter(&self, tenant: TenantId) -> Result<(Transaction<Pooled>, Arc<Catalogue>), Failure>;
}

/// Handle on one tenant's rows.
pub struct PostgresRows<H> {
    /// Where the rows are.
    pub location: Arc<H>,
    /// The tenant.
    pub tenant: TenantId,
}

/// The tenant has no rows here, or no longer.
pub fn no_such_tenant() -> Failure {
    Failure::invalid(
        "no_such_tenant",
        "the tenant has no rows in this database; repair the tenant if it should",
    )
}

/// The statement that inserts a block of a seed: its parameter is a JSON array of rows, whose values the
/// table's types parse.
pub fn insert_statement(table: &str, columns: &[String]) -> String {
    let all: Vec<&str> = std::iter::once(OWNER).chain(columns.iter().map(String::as_str)).collect();
    let names: Vec<String> = all.iter().map(|column| quoted(column)).collect();
    let fields: Vec<String> =
        all.iter().enumerate().map(|(i, column)| format!("{}, value -> {i}", literal(column))).collect();
    let (table, names) = (quoted(table), names.join(", "));
    format!(
        "INSERT INTO {table} ({names}) SELECT {names} FROM jsonb_array_elements($1::jsonb) AS rows(value),
         LATERAL jsonb_populate_record(NULL::{table}, jsonb_build_object({})) ON CONFLICT DO NOTHING",
        fields.join(", "),
    )
}

/// Deletes every row of the tenant, children before parents, and counts them by table.
pub async fn delete_all(
    connection: &mut Session,
    catalogue: &Catalogue,
    schema: &str,
    tenant: &str,
) -> Result<Value, Failure> {
    let mut counts = Map::new();
    for table in &catalogue.deletion_order {
        let sql = format!("DELETE FROM {}.{} WHERE {OWNER} = $1", quoted(schema), quoted(table));
        let done = connection.execute(&sql, &[&tenant]).await;
        counts.insert(table.clone(), done.map_err(failure)?.into());
    }
    Ok(Value::Object(counts))
}

/// Counts the rows of each table in a tenant's own schema.
pub async fn count_all(
    connection: &mut Session,
    catalogue: &Catalogue,
    schema: &str,
) -> Result<Value, Failure> {
    let mut counts = Map::new();
    for table in catalogue.tables.keys() {
        let sql = format!("SELECT count(*) FROM {}.{}", quoted(schema), quoted(table));
        counts.insert(table.clone(), connection.one::<i64>(&sql, &[]).await.map_err(failure)?.into());
    }
    Ok(Value::Object(counts))
}

/// SQL of a text parameter as the type of the table's ids.
fn id(table: &Table, parameter: u8) -> String {
    let kind = table.column("id").map_or("text", |column| column.kind.as_str());
    format!("(${parameter}::text)::{kind}")
}

fn as_json() -> String {
    format!("to_jsonb(own) - '{OWNER}'")
}

#[async_trait]
impl<H: LocateRows> TenantRows for PostgresRows<H> {
    async fn insert(&self, name: &str, mut row: Map<String, Value>) -> Result<Value, Failure> {
        let (mut transaction, catalogue) = self.location.enter(self.tenant).await?;
        let (name, table) = catalogue.addressable(name)?;
        table.name_row(&mut row);
        let columns: Vec<String> =
            table.given(name, &row)?.into_iter().map(|column| quoted(&column.name)).collect();
        let (columns, table) = (columns.join(", "), quoted(name));
        let comma = if columns.is_empty() { "" } else { ", " };
        let sql = format!(
            "INSERT INTO {table} AS own ({OWNER}{comma}{columns}) SELECT $1{comma}{columns}
             FROM jsonb_populate_record(NULL::{table}, $2) RETURNING {}",
            as_json(),
        );
        let added = transaction.one(&sql, &[&self.tenant.to_string(), &Value::Object(row)]).await.map_err(
            |error| match failure(error) {
                // A removed tenant must not get rows while its last tokens are valid.
                refused if refused.code == "not_allowed" => no_such_tenant(),
                other => other,
            },
        )?;
        transaction.commit().await.map_err(failure)?;
        Ok(added)
    }

    async fn list(&self, name: &str, limit: u32, after: Option<&str>) -> Result<Page, Failure> {
        let (mut transaction, catalogue) = self.location.enter(self.tenant).await?;
        let (name, table) = catalogue.addressable(name)?;
        check_limit(limit)?;
        let sql = format!(
            "SELECT own.id::text, {} FROM {} own WHERE {OWNER} = $1 AND ($2::text IS NULL OR id > {}) ORDER BY own.id LIMIT $3",
            as_json(),
            quoted(name),
            id(table, 2),
        );
        let found: Vec<(String, Value)> = transaction
            .pairs(&sql, &[&self.tenant.to_string(), &after, &(i64::from(limit) + 1)])
            .await
            .map_err(failure)?;
        transaction.commit().await.map_err(failure)?;
        let more = found.len() > limit as usize;
        let kept = found.get(..limit as usize).unwrap_or(&found);
        let next = kept.last().filter(|_| more).map(|(id, _)| id.clone());
        Ok(Page { rows: kept.iter().map(|(_, row)| row.clone()).collect(), next })
    }

    async fn get(&self, name: &str, id_text: &str) -> Result<Option<Value>, Failure> {
        let (mut transaction, catalogue) = self.location.enter(self.tenant).await?;
        let (name, table) = catalogue.addressable(name)?;
        let sql = format!(
            "SELECT {} FROM {} own WHERE {OWNER} = $1 AND id = {}",
            as_json(),
            quoted(name),
            id(table, 2)
        );
        let found = transaction.first(&sql, &[&self.tenant.to_string(), &id_text]).await.map_err(failure)?;
        transaction.commit().await.map_err(failure)?;
        Ok(found)
    }

    async fn delete(&self, name: &str, id_text: &str) -> Result<bool, Failure> {
        let (mut transaction, catalogue) = self.location.enter(self.tenant).await?;
        let (name, table) = catalogue.addressable(name)?;
        let sql = format!("DELETE FROM {} WHERE {OWNER} = $1 AND id = {}", quoted(name), id(table, 2));
        let done = transaction.execute(&sql, &[&self.tenant.to_string(), &id_text]).await.map_err(failure)?;
        transaction.commit().await.map_err(failure)?;
        Ok(done > 0)
    }

    async fn remove_samples(&self) -> Result<Value, Failure> {
        let (mut transaction, catalogue) = self.location.enter(self.tenant).await?;
        let mut counts = Map::new();
        for name in &catalogue.deletion_order {
            if catalogue.tables.get(name).is_some_and(|table| table.column("sample").is_some()) {
                let sql = format!(
                    "DELETE FROM {} WHERE {OWNER} = $1 AND sample::text IN ('true', '1')",
                    quoted(name)
                );
                let done = transaction
                    .execute(&sql, &[&self.tenant.to_string()])
                    .await
                    .map_err(|error| sample_in_use(failure(error)))?;
                counts.insert(name.clone(), done.into());
            }
        }
        transaction.commit().await.map_err(failure)?;
        Ok(Value::Object(counts))
    }
}
