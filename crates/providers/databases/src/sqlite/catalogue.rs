//! Reads a database file's tables, columns and keys. Rejects a schema in which a tenant could reach another
//! tenant's rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use tenantry_model::Failure;

use super::client::{failure, first, query};
use crate::migrations::is_marked;
use crate::shape::Shape;
use crate::tables::{
    Catalogue, Column, OWNER, OwnerType, Table, bad_schema, cycle, deletion_order, literal, lookup_reference,
    owned_lookup, quoted, unowned,
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
    let parents = references(connection, &tables, &mut faults)?;
    unique_indexes(connection, &tables, &mut faults)?;
    triggers(connection, &tables, &mut faults)?;
    tables.retain(|name, _| !is_internal(name));
    let deletion_order = deletion_order(&tables, parents);
    faults.extend(deletion_order.iter().filter(|group| group.len() > 1).map(|group| cycle(group)));
    if !faults.is_empty() {
        return Err(bad_schema(faults));
    }
    Ok(Catalogue { tables, deletion_order, shape: shape(connection)?, ..Catalogue::new() })
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
    let [mut owned, mut keyed] = [BTreeSet::new(), BTreeSet::new()];
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
        table.is_lookup = is_marked(&sql);
        table.owner = Some(OwnerType::Text).filter(|_| !table.is_lookup);
        if column.name != OWNER {
            table.columns.push(column);
            continue;
        }
        if key {
            keyed.insert(name.clone());
        }
        owned.insert(name);
    }
    for (name, table) in tables.iter().filter(|(name, _)| !is_internal(name)) {
        if name.starts_with('_') {
            faults
                .push(format!("table `{name}`: names that begin with an underscore are reserved; rename it"));
        } else if table.is_lookup && owned.contains(name) {
            faults.push(owned_lookup(name));
        } else if !table.is_lookup && !keyed.contains(name) {
            faults.push(unowned(name, "`tenant_id TEXT NOT NULL` that is part of its primary key"));
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
    tables: &BTreeMap<String, Table>,
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
        let is_lookup = [&table, &parent].map(|name| is_lookup(tables, name));
        if is_lookup == [true, false] {
            faults.push(lookup_reference(&table, &parent));
        } else if is_lookup == [false, false] && !kept {
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

/// Whether this is a lookup table; names in keys and triggers may differ in case.
fn is_lookup(tables: &BTreeMap<String, Table>, name: &str) -> bool {
    tables.iter().any(|(table, it)| it.is_lookup && table.eq_ignore_ascii_case(name))
}

/// Checks that no trigger writes to a lookup table: a tenant's write would change what all tenants read. SQLite itself says
/// which tables a statement writes, triggers included, when it prepares the statement.
fn triggers(
    connection: &Connection,
    tables: &BTreeMap<String, Table>,
    faults: &mut Vec<String>,
) -> Result<(), Failure> {
    let read = "SELECT DISTINCT tbl_name FROM sqlite_schema WHERE type = 'trigger'";
    let owners: Vec<String> = query(connection, read, [], |row| row.get(0))?;
    let written = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&written);
    let record = move |context: AuthContext<'_>| {
        use AuthAction::{Delete, Insert, Update};
        if let (
            Insert { table_name: table } | Delete { table_name: table } | Update { table_name: table, .. },
            Some(trigger),
        ) = (context.action, context.accessor)
        {
            seen.lock().insert((trigger.to_owned(), table.to_owned()));
        }
        Authorization::Allow
    };
    connection.authorizer(Some(record)).map_err(failure)?;
    let prepared = owners.iter().try_for_each(|owner| prepare_writes(connection, owner));
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).map_err(failure)?;
    prepared?;
    for (trigger, table) in written.lock().iter().filter(|(_, table)| is_lookup(tables, table)) {
        faults.push(format!(
            "the trigger `{trigger}` writes to {table}, which is marked `tenantry: lookup`: remove the trigger"
        ));
    }
    Ok(())
}

/// Prepares a statement for each kind of write of a table or view, all columns included.
fn prepare_writes(connection: &Connection, table: &str) -> Result<(), Failure> {
    let read = "SELECT name FROM pragma_table_info(?1)";
    let columns: Vec<String> = query(connection, read, [table], |row| row.get(0))?;
    let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    let same: Vec<String> = columns.iter().map(|column| format!("{column} = {column}")).collect();
    let (table, list) = (quoted(table), columns.join(", "));
    for sql in [
        format!("INSERT INTO {table} ({list}) SELECT {list} FROM {table}"),
        format!("UPDATE {table} SET {}", same.join(", ")),
        format!("DELETE FROM {table}"),
    ] {
        // A view without a trigger for this kind of write is not written.
        drop(connection.prepare(&sql));
    }
    Ok(())
}

/// Checks that every unique index has `tenant_id`: without it, it would tell one tenant about another's rows.
fn unique_indexes(
    connection: &Connection,
    tables: &BTreeMap<String, Table>,
    faults: &mut Vec<String>,
) -> Result<(), Failure> {
    let found: Vec<String> = query(
        connection,
        "SELECT t.name FROM sqlite_schema t JOIN pragma_index_list(t.name) i
         WHERE t.type = 'table' AND substr(t.name, 1, 1) <> '_' AND i.\"unique\" = 1
           AND NOT EXISTS (SELECT 1 FROM pragma_index_info(i.name) c WHERE c.name = 'tenant_id')",
        [],
        |row| row.get(0),
    )?;
    faults.extend(found.iter().filter(|name| !is_lookup(tables, name)).map(|table| {
        format!(
            "table `{table}`: every unique index must have `{OWNER}` among its columns, or one tenant could find out what another one has"
        )
    }));
    Ok(())
}
