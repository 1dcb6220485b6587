//! Reads a database file's tables, columns and keys. Rejects a schema in which a tenant could reach another
//! tenant's rows.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use tenantry_model::Failure;

use super::client::failure;
use crate::shape::Shape;
use crate::tables::{Catalogue, Column, OWNER, Table, deletion_order, literal, quoted};

/// The expression that turns a row into a JSON object, without `tenant_id`.
pub fn as_json(table: &Table) -> String {
    let pairs: Vec<String> = table
        .columns
        .iter()
        .map(|column| {
            let (text, name) = (literal(&column.name), quoted(&column.name));
            // JSON has no bytes.
            if column.kind == "BLOB" { format!("{text}, hex({name})") } else { format!("{text}, {name}") }
        })
        .collect();
    format!("json_object({})", pairs.join(", "))
}

/// Reads the schema and checks that it keeps tenants apart. The failure names the table and what to change.
pub async fn read(connection: &mut SqliteConnection) -> Result<Catalogue, Failure> {
    let mut faults = Vec::new();
    let mut tables = columns(connection, &mut faults).await?;
    let parents = references(connection, &mut faults).await?;
    unique_indexes(connection, &mut faults).await?;
    if let Some(fault) = faults.into_iter().next() {
        return Err(Failure::fatal("bad_schema", fault));
    }
    let deletion_order = deletion_order(&tables, parents)?;
    tables.retain(|name, _| !name.starts_with('_'));
    Ok(Catalogue { tables, deletion_order, shape: shape(connection).await? })
}

/// The definition of every table, view, index and trigger.
pub async fn shape(connection: &mut SqliteConnection) -> Result<Shape, Failure> {
    let rows = sqlx::query_as::<_, (String, String, String)>(
        "SELECT CASE WHEN type = 'view' THEN 'view `' || name || '`' ELSE 'table `' || tbl_name || '`' END,
                CASE WHEN type IN ('table', 'view') THEN '' ELSE type || ' `' || name || '`' END, sql
         FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite~_%' ESCAPE '~'",
    );
    Ok(rows.fetch_all(connection).await.map_err(failure)?.into_iter().collect())
}

/// Whether any table that the file has now holds rows of this tenant.
pub async fn holds(connection: &mut SqliteConnection, tenant: &str) -> Result<bool, Failure> {
    let tables = sqlx::query_scalar::<_, String>(
        "SELECT t.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c ON c.name = ?1
         WHERE t.type = 'table' AND t.name NOT IN ('_tenants', '_migrations')",
    );
    let tables = tables.bind(OWNER).fetch_all(&mut *connection).await.map_err(failure)?;
    let of = |table: &String| format!("EXISTS (SELECT 1 FROM {} WHERE {OWNER} = ?1)", quoted(table));
    let any: Vec<String> = std::iter::once("false".to_owned()).chain(tables.iter().map(of)).collect();
    let found = sqlx::query_scalar(AssertSqlSafe(format!("SELECT {}", any.join(" OR "))));
    found.bind(tenant).persistent(false).fetch_one(connection).await.map_err(failure)
}

async fn columns(
    connection: &mut SqliteConnection,
    faults: &mut Vec<String>,
) -> Result<BTreeMap<String, Table>, Failure> {
    let rows = sqlx::query(
        "SELECT t.name AS tbl, t.sql AS sql, c.name AS col, upper(c.type) AS kind, c.\"notnull\" AS filled, c.pk AS pk, c.hidden AS hidden
         FROM sqlite_schema t JOIN pragma_table_xinfo(t.name) c
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY t.name, c.cid",
    )
    .fetch_all(connection)
    .await
    .map_err(failure)?;
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let mut owned = BTreeSet::new();
    for row in rows {
        let name: String = row.get("tbl");
        let sql: String = row.get("sql");
        if sql.get(..14).is_some_and(|start| start.eq_ignore_ascii_case("CREATE VIRTUAL")) {
            faults.push(format!("table `{name}` is virtual: its rows cannot be told apart by tenant"));
        }
        let column: String = row.get("col");
        let table = tables.entry(name.clone()).or_default();
        if column == OWNER {
            if row.get::<i64, _>("filled") == 1 && row.get::<i64, _>("pk") > 0 {
                owned.insert(name);
            }
        } else {
            table.columns.push(Column {
                name: column,
                kind: row.get("kind"),
                generated: row.get::<i64, _>("hidden") > 1,
            });
        }
    }
    for name in tables.keys().filter(|name| !is_internal(name)) {
        if name.starts_with('_') {
            faults
                .push(format!("table `{name}`: names that begin with an underscore are reserved; rename it"));
        } else if !owned.contains(name) {
            faults.push(format!(
                "table `{name}` cannot be shared by tenants: it needs a column `{OWNER} TEXT NOT NULL` that is part of its primary key"
            ));
        }
    }
    Ok(tables)
}

fn is_internal(table: &str) -> bool {
    matches!(table, "_migrations" | "_tenants")
}

/// The tables that each table refers to. Checks that every foreign key carries `tenant_id`: otherwise a row
/// could refer to another tenant's.
async fn references(
    connection: &mut SqliteConnection,
    faults: &mut Vec<String>,
) -> Result<BTreeMap<String, BTreeSet<String>>, Failure> {
    let rows = sqlx::query(
        "SELECT t.name AS tbl, f.\"table\" AS parent, max(f.\"from\" = 'tenant_id' AND coalesce(f.\"to\", 'tenant_id') = 'tenant_id') AS kept
         FROM sqlite_schema t JOIN pragma_foreign_key_list(t.name) f
         WHERE t.type = 'table' GROUP BY t.name, f.id",
    )
    .fetch_all(connection)
    .await
    .map_err(failure)?;
    let mut parents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows {
        let (table, parent): (String, String) = (row.get("tbl"), row.get("parent"));
        if row.get::<i64, _>("kept") == 0 {
            faults.push(format!(
                "table `{table}`: its foreign key to `{parent}` must carry `{OWNER}`, or a row could refer to another tenant's"
            ));
        }
        if table != parent {
            parents.entry(table).or_default().insert(parent);
        }
    }
    Ok(parents)
}

/// Checks that every unique index has `tenant_id`: without it, it would tell one tenant about another's rows.
async fn unique_indexes(connection: &mut SqliteConnection, faults: &mut Vec<String>) -> Result<(), Failure> {
    let rows = sqlx::query(
        "SELECT t.name AS tbl, i.name AS idx FROM sqlite_schema t JOIN pragma_index_list(t.name) i
         WHERE t.type = 'table' AND substr(t.name, 1, 1) <> '_' AND i.\"unique\" = 1
           AND NOT EXISTS (SELECT 1 FROM pragma_index_info(i.name) c WHERE c.name = 'tenant_id')",
    )
    .fetch_all(connection)
    .await
    .map_err(failure)?;
    for row in rows {
        let table: String = row.get("tbl");
        faults.push(format!(
            "table `{table}`: every unique index must have `{OWNER}` among its columns, or one tenant could find out what another one has"
        ));
    }
    Ok(())
}
