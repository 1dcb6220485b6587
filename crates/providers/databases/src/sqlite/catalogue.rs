//! Reads a database file's tables, columns and keys. Rejects a schema in which a tenant could reach another
//! tenant's rows.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use tenantry_model::Failure;

use super::client::{first, query};
use crate::shape::Shape;
use crate::tables::{
    Catalogue, Column, OWNER, OwnerType, Table, bad_schema, cycle, deletion_order, literal, quoted,
};

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
pub fn read(connection: &Connection) -> Result<Catalogue, Failure> {
    let mut faults = Vec::new();
    let mut tables = columns(connection, &mut faults)?;
    let parents = references(connection, &mut faults)?;
    unique_indexes(connection, &mut faults)?;
    tables.retain(|name, _| !is_internal(name));
    let deletion_order = deletion_order(&tables, parents);
    faults.extend(deletion_order.iter().filter(|group| group.len() > 1).map(|group| cycle(group)));
    if !faults.is_empty() {
        return Err(bad_schema(faults));
    }
    Ok(Catalogue { tables, deletion_order, is_whole: false, shape: shape(connection)? })
}

/// The definition of every table, view, index and trigger.
pub fn shape(connection: &Connection) -> Result<Shape, Failure> {
    let rows = query(
        connection,
        "SELECT CASE WHEN type = 'view' THEN 'view `' || name || '`' ELSE 'table `' || tbl_name || '`' END,
                CASE WHEN type IN ('table', 'view') THEN '' ELSE type || ' `' || name || '`' END, sql
         FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite~_%' ESCAPE '~'",
        [],
        |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)),
    );
    Ok(rows?.into_iter().collect())
}

/// Whether any table that the file has now holds rows of this tenant.
pub fn holds(connection: &Connection, tenant: &str) -> Result<bool, Failure> {
    let tables: Vec<String> = query(
        connection,
        "SELECT t.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c ON c.name = ?1
         WHERE t.type = 'table' AND t.name NOT IN ('_tenants', '_migrations')",
        [OWNER],
        |row| row.get(0),
    )?;
    for table in tables {
        let sql = format!("SELECT 1 FROM {} WHERE {OWNER} = ?1 LIMIT 1", quoted(&table));
        if first(connection, &sql, [tenant], |_| Ok(()))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn columns(connection: &Connection, faults: &mut Vec<String>) -> Result<BTreeMap<String, Table>, Failure> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let mut owned = BTreeSet::new();
    let rows = query(
        connection,
        "SELECT t.name, t.sql, c.name, upper(c.type), c.\"notnull\" = 1 AND c.pk > 0, c.hidden > 1
         FROM sqlite_schema t JOIN pragma_table_xinfo(t.name) c
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY t.name, c.cid",
        [],
        |row| {
            let computed = row.get(5)?;
            let column = Column { name: row.get(2)?, kind: row.get(3)?, generated: computed, computed };
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(4)?, column))
        },
    )?;
    for (name, sql, key, column) in rows {
        if sql.get(..14).is_some_and(|start| start.eq_ignore_ascii_case("CREATE VIRTUAL")) {
            faults.push(format!("table `{name}` is virtual: its rows cannot be told apart by tenant"));
        }
        let table = tables.entry(name.clone()).or_default();
        table.owner = Some(OwnerType::Text);
        if column.name != OWNER {
            table.columns.push(column);
        } else if key {
            owned.insert(name);
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
fn references(
    connection: &Connection,
    faults: &mut Vec<String>,
) -> Result<BTreeMap<String, BTreeSet<String>>, Failure> {
    let rows: Vec<(String, String, bool)> = query(
        connection,
        "SELECT t.name, f.\"table\", max(f.\"from\" = 'tenant_id' AND coalesce(f.\"to\", 'tenant_id') = 'tenant_id')
         FROM sqlite_schema t JOIN pragma_foreign_key_list(t.name) f
         WHERE t.type = 'table' GROUP BY t.name, f.id",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let mut parents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (table, parent, kept) in rows {
        if !kept {
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
fn unique_indexes(connection: &Connection, faults: &mut Vec<String>) -> Result<(), Failure> {
    let tables: Vec<String> = query(
        connection,
        "SELECT t.name FROM sqlite_schema t JOIN pragma_index_list(t.name) i
         WHERE t.type = 'table' AND substr(t.name, 1, 1) <> '_' AND i.\"unique\" = 1
           AND NOT EXISTS (SELECT 1 FROM pragma_index_info(i.name) c WHERE c.name = 'tenant_id')",
        [],
        |row| row.get(0),
    )?;
    faults.extend(tables.iter().map(|table| {
        format!(
            "table `{table}`: every unique index must have `{OWNER}` among its columns, or one tenant could find out what another one has"
        )
    }));
    Ok(())
}
