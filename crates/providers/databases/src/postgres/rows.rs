//! Access to one tenant's rows. Every statement runs in a transaction that acts as the tenant's role and, in
//! shared tables, has the tenant's id as a parameter; table and column names come from the catalogue, never from the request.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tenantry_model::{Failure, TenantId};
use tenantry_postgres::{Pooled, Session, Transaction};

use super::catalogue;
use super::failure::failure;
use super::relations::{Relation, Relations, relation, unqualified};
use super::server::run;
use crate::tables::{
    Catalogue, Column, OWNER, Table, check_limit, check_writable, in_parentheses, quoted, sample_in_use,
};
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

/// Deletes every row of the tenant from shared tables, children before parents, and counts them by table.
pub async fn delete_all(
    connection: &mut Session,
    catalogue: &Catalogue,
    schema: &str,
    tenant: TenantId,
) -> Result<Value, Failure> {
    let mut counts = Map::new();
    for name in catalogue.deletion_order.iter().flatten() {
        let Some(table) = catalogue.tables.get(name) else { continue };
        let Some(owner) = table.owner else { continue };
        let own = owner.literal(tenant);
        let sql = format!("DELETE FROM {} WHERE {OWNER} = {own}", relation(schema, name, table));
        let done = connection.execute(&sql, &[]).await;
        counts.insert(name.clone(), done.map_err(failure)?.into());
    }
    Ok(Value::Object(counts))
}

/// Counts all rows of each table in a tenant's own schema, without a time limit. Not in a transaction, which would keep a
/// lock on every table.
pub async fn count_all(connection: &mut Session, schema: &str) -> Result<Map<String, Value>, Failure> {
    run(connection, "SET statement_timeout = 0".to_owned()).await?;
    let counted = count(connection, schema).await;
    let restored = run(connection, "RESET statement_timeout".to_owned()).await;
    counted.and_then(|counts| restored.map(|()| counts))
}

async fn count(connection: &mut Session, schema: &str) -> Result<Map<String, Value>, Failure> {
    let mut counts = Map::new();
    let relations = Relations::read(connection, schema).await?;
    for (name, table) in catalogue::tables(connection, schema).await? {
        let mut rows = 0;
        for Relation { from, .. } in relations.of(&name, &table) {
            let sql = format!("SELECT count(*) FROM {from}");
            rows += connection.one::<i64>(&sql, &[]).await.map_err(failure)?;
        }
        counts.insert(name, rows.into());
    }
    Ok(counts)
}

/// SQL condition that a row is the tenant's, whose id is the text parameter `$1`.
fn is_own(catalogue: &Catalogue, table: &Table) -> String {
    match table.owner.filter(|_| !catalogue.is_whole) {
        Some(owner) => format!("{OWNER} = ($1::text)::{}", owner.as_str()),
        None => "true".to_owned(),
    }
}

/// The tenant's id as this table stores it.
fn owner_value(table: &Table, tenant: TenantId) -> String {
    table.owner.map(|owner| owner.value(tenant)).unwrap_or_default()
}

/// SQL of a text parameter as the type of the table's ids.
fn id(table: &Table, parameter: u8) -> String {
    let kind = table.column("id").map_or("text", |column| column.kind.as_str());
    format!("(${parameter}::text)::{kind}")
}

fn as_json(table: &Table) -> String {
    match table.owner {
        Some(_) => format!("to_jsonb(own.*) - '{OWNER}'"),
        None => "to_jsonb(own.*)".to_owned(),
    }
}

#[async_trait]
impl<H: LocateRows> TenantRows for PostgresRows<H> {
    async fn insert(&self, name: &str, mut row: Map<String, Value>) -> Result<Value, Failure> {
        let (mut transaction, catalogue) = self.location.enter(self.tenant).await?;
        let (name, table) = catalogue.addressable(name)?;
        check_writable(name, table)?;
        table.name_row(&mut row);
        let own = table.owner.map(|owner| (OWNER, format!("($1::text)::{}", owner.as_str())));
        let given = table.given(name, &row)?.into_iter().map(|column| (&*column.name, quoted(&column.name)));
        let (columns, values): (Vec<String>, Vec<String>) =
            own.into_iter().chain(given).map(|(column, value)| (quoted(column), value)).unzip();
        let owner = owner_value(table, self.tenant);
        let (columns, values, json, table) =
            (in_parentheses(&columns), values.join(", "), as_json(table), unqualified(name, table));
        let sql = format!(
            "INSERT INTO {table} AS own {columns} SELECT {values} FROM jsonb_populate_record(NULL::{table}, $2) RETURNING {json}"
        );
        let added = transaction.one(&sql, &[&owner, &Value::Object(row)]).await.map_err(|error| {
            match failure(error) {
                // A removed tenant must not get rows while its last tokens are valid.
                refused if refused.code == "not_allowed" => no_such_tenant(),
                other => other,
            }
        })?;
        transaction.commit().await.map_err(failure)?;
        Ok(added)
    }

    async fn list(&self, name: &str, limit: u32, after: Option<&str>) -> Result<Page, Failure> {
        let (mut transaction, catalogue) = self.location.enter(self.tenant).await?;
        let (name, table) = catalogue.addressable(name)?;
        check_limit(limit)?;
        let sql = format!(
            "SELECT own.id::text, {} FROM {} own WHERE {} AND ($2::text IS NULL OR id > {}) ORDER BY own.id LIMIT $3",
            as_json(table),
            unqualified(name, table),
            is_own(&catalogue, table),
            id(table, 2),
        );
        let found: Vec<(String, Value)> = transaction
            .pairs(&sql, &[&owner_value(table, self.tenant), &after, &(i64::from(limit) + 1)])
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
            "SELECT {} FROM {} own WHERE {} AND id = {}",
            as_json(table),
            unqualified(name, table),
            is_own(&catalogue, table),
            id(table, 2)
        );
        let found =
            transaction.first(&sql, &[&owner_value(table, self.tenant), &id_text]).await.map_err(failure)?;
        transaction.commit().await.map_err(failure)?;
        Ok(found)
    }

    async fn delete(&self, name: &str, id_text: &str) -> Result<bool, Failure> {
        let (mut transaction, catalogue) = self.location.enter(self.tenant).await?;
        let (name, table) = catalogue.addressable(name)?;
        check_writable(name, table)?;
        let own = is_own(&catalogue, table);
        let sql = format!("DELETE FROM {} WHERE {own} AND id = {}", unqualified(name, table), id(table, 2));
        let owner = owner_value(table, self.tenant);
        let done = transaction.execute(&sql, &[&owner, &id_text]).await.map_err(failure)?;
        transaction.commit().await.map_err(failure)?;
        Ok(done > 0)
    }

    async fn remove_samples(&self) -> Result<Value, Failure> {
        let (mut transaction, catalogue) = self.location.enter(self.tenant).await?;
        let mut counts = Map::new();
        for name in catalogue.deletion_order.iter().flatten() {
            let Some(table) = catalogue.tables.get(name) else { continue };
            // In a schema of the tenant's own, a column of this name and another type may mean anything.
            let marks = |column: &Column| column.kind == "boolean" || !catalogue.is_whole;
            if !table.column("sample").is_some_and(marks) {
                continue;
            }
            let own = is_own(&catalogue, table);
            let from = unqualified(name, table);
            let sql = format!("DELETE FROM {from} WHERE {own} AND sample::text IN ('true', '1')");
            let done = transaction.execute(&sql, &[&owner_value(table, self.tenant)]).await;
            counts.insert(name.clone(), done.map_err(|error| sample_in_use(failure(error)))?.into());
        }
        transaction.commit().await.map_err(failure)?;
        Ok(Value::Object(counts))
    }
}
