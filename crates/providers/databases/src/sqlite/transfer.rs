//! Exports one tenant's rows from a database file and loads them back, as CSV. An export reads one
//! transaction. A load fills temporary tables first and then replaces the tenant's rows in one transaction,
//! so the file is locked only briefly. A blocking thread has the file; between it and the archive go blocks of
//! rows.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};
use tenantry_model::{Failure, FailureClass};
use tokio::io::BufReader;
use tokio::sync::mpsc;

use super::catalogue;
use super::client::{self, batch, execute, failure, first};
use crate::tables::{Catalogue, OWNER, quoted};
use tenantry_provider::csv::{self, Field};
use tenantry_provider::resource_locks::blocking;
use tenantry_provider::transfer::{Content, Sink, Source, Tally, bad_archive};
use tenantry_provider::verbs::Spec;

/// Archive format of rows from SQLite tables.
pub const FORM: &str = "sqlite_tables";
/// Bytes after which a block of rows ends. One block waits while another is filled and a third is used.
const BLOCK: usize = 1 << 20;
/// Bytes that a value takes beside its content.
const VALUE: usize = 32;

/// A table between the file and the archive, whose rows follow in blocks. Each row is an `R`.
struct Table<R> {
    name: String,
    columns: Vec<String>,
    rows: mpsc::Receiver<Vec<R>>,
}

/// The failure of work whose caller is gone.
fn abandoned() -> Failure {
    Failure::retryable("stopped", "the transfer was abandoned; try again")
}

/// Exports the spec's rows into `sink`.
pub async fn export(file: &Path, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
    let (tables, exported) = mpsc::channel(1);
    let (file, spec) = (file.to_owned(), spec.clone());
    let reading = blocking(move || read(&file, &spec, &tables));
    let ((), content) = tokio::try_join!(reading, write(exported, sink))?;
    Ok(content)
}

/// Reads the rows, as lines of CSV. Ends when they are no longer received.
fn read(file: &Path, spec: &Spec, tables: &mpsc::Sender<Table<Vec<u8>>>) -> Result<(), Failure> {
    let connection = client::open_to_read(file)?;
    batch(&connection, "BEGIN")?;
    require_tenant(&connection, spec)?;
    let catalogue = catalogue::read(&connection)?;
    // Parents before children.
    for name in catalogue.deletion_order.iter().rev().flatten() {
        let columns = columns(&catalogue, name);
        // A table with no column but the tenant's id has nothing to export.
        if columns.is_empty() {
            continue;
        }
        let sql = format!("SELECT {} FROM {} WHERE {OWNER} = ?1", listed(&columns), quoted(name));
        let (blocks, rows) = mpsc::channel(1);
        tables.blocking_send(Table { name: name.clone(), columns, rows }).map_err(|_| abandoned())?;
        let mut statement = connection.prepare(&sql).map_err(failure)?;
        let mut found = statement.query([spec.tenant.id.to_string()]).map_err(failure)?;
        let (mut block, mut size) = (Vec::new(), 0);
        while let Some(row) = found.next().map_err(failure)? {
            let line = line(row, name)?;
            size += line.len() + VALUE;
            block.push(line);
            if size >= BLOCK {
                blocks.blocking_send(std::mem::take(&mut block)).map_err(|_| abandoned())?;
                size = 0;
            }
        }
        blocks.blocking_send(block).map_err(|_| abandoned())?;
    }
    Ok(())
}

async fn write(mut tables: mpsc::Receiver<Table<Vec<u8>>>, sink: &mut dyn Sink) -> Result<Content, Failure> {
    let mut tally = Tally::default();
    while let Some(Table { name, columns, mut rows }) = tables.recv().await {
        let mut out = csv::Table::new(sink, &mut tally, &name, columns.iter().map(String::as_str));
        while let Some(lines) = rows.recv().await {
            for line in lines {
                out.row(&line).await?;
            }
        }
        out.end().await?;
    }
    Ok(tally.content())
}

/// Replaces the spec's rows by those of `source`.
pub async fn load(
    file: &Path,
    max_bytes: Option<u64>,
    spec: &Spec,
    source: &mut dyn Source,
) -> Result<(), Failure> {
    // Open until the end, which tells the thread that this call is still there.
    let (tables, arriving) = mpsc::channel(1);
    let (file, spec) = (file.to_owned(), spec.clone());
    let writing = blocking(move || fill(&file, max_bytes, &spec, arriving));
    tokio::try_join!(writing, feed(source, &tables)).map(drop)
}

/// Tables of an archive, and none at its end.
type Arriving = mpsc::Receiver<Option<Table<Vec<Field>>>>;

/// Sends the archive's tables. Ends without an error when they are no longer received: the reason is the
/// result of the thread.
async fn feed(
    source: &mut dyn Source,
    tables: &mpsc::Sender<Option<Table<Vec<Field>>>>,
) -> Result<(), Failure> {
    while let Some(file) = source.next().await? {
        let name = csv::table_of(&file.path)?;
        let mut bytes = BufReader::new(file.bytes);
        let columns = csv::header(&mut bytes).await?;
        let (blocks, rows) = mpsc::channel(1);
        let _ = tables.send(Some(Table { name, columns, rows })).await;
        let (mut block, mut size) = (Vec::new(), 0);
        while let Some(row) = csv::read(&mut bytes).await? {
            size += row.iter().map(length).sum::<usize>();
            block.push(row);
            if size >= BLOCK {
                if blocks.send(std::mem::take(&mut block)).await.is_err() {
                    return Ok(());
                }
                size = 0;
            }
        }
        if blocks.send(block).await.is_err() {
            return Ok(());
        }
    }
    let _ = tables.send(None).await;
    Ok(())
}

fn length(field: &Field) -> usize {
    match field {
        Field::Null => VALUE,
        Field::Bare(text) | Field::Quoted(text) => VALUE + text.len(),
    }
}

/// Writes the archive's rows into the file. Commits only if the archive has ended and the caller is there.
fn fill(file: &Path, max_bytes: Option<u64>, spec: &Spec, mut tables: Arriving) -> Result<(), Failure> {
    let connection = client::open(file, max_bytes)?;
    require_tenant(&connection, spec)?;
    let catalogue = catalogue::read(&connection)?;
    // Writes temporary tables only, so the file stays usable.
    batch(&connection, "BEGIN")?;
    let staged = stage(&connection, &catalogue, &mut tables)?;
    batch(&connection, "COMMIT")?;
    let transaction = client::begin(&connection)?;
    require_tenant(&connection, spec)?;
    // Rows may refer to later rows of the same table.
    batch(&connection, "PRAGMA defer_foreign_keys = ON")?;
    replace(&connection, &catalogue, &staged, spec).map_err(unfit)?;
    if tables.is_closed() {
        return Err(abandoned());
    }
    transaction.commit().map_err(|error| unfit(failure(error)))
}

fn require_tenant(connection: &Connection, spec: &Spec) -> Result<(), Failure> {
    let sql = "SELECT 1 FROM _tenants WHERE tenant_id = ?1 AND claim = ?2";
    if first(connection, sql, [&spec.tenant.id.to_string(), &spec.claim], |_| Ok(()))?.is_some() {
        return Ok(());
    }
    Err(Failure::invalid(
        "no_such_tenant",
        "the tenant has no rows in this database; repair the tenant if it should",
    ))
}

/// Names of a table's writable columns.
fn columns(catalogue: &Catalogue, table: &str) -> Vec<String> {
    let columns = catalogue.tables.get(table).map(|table| table.columns.as_slice()).unwrap_or_default();
    columns.iter().filter(|column| !column.generated).map(|column| column.name.clone()).collect()
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

fn no_text(table: &str) -> Failure {
    Failure::fatal("bad_text", format!("table `{table}` holds a text that is not UTF-8: store it as bytes"))
}

fn unfit(failure: Failure) -> Failure {
    match failure.class {
        FailureClass::Invalid => {
            bad_archive(format!("the archive's rows do not fit this database's tables: {}", failure.message))
        }
        _ => failure,
    }
}

/// A row as a line of CSV. Returns an error for text that is not UTF-8.
fn line(row: &Row<'_>, table: &str) -> Result<Vec<u8>, Failure> {
    let mut line = Vec::new();
    for place in 0..row.as_ref().column_count() {
        if place > 0 {
            line.push(b',');
        }
        // SQLite types belong to values, not columns.
        match row.get_ref(place).map_err(failure)? {
            ValueRef::Null => {}
            ValueRef::Integer(integer) => line.extend(integer.to_string().bytes()),
            ValueRef::Real(real) => line.extend(format!("{real:?}").bytes()),
            ValueRef::Blob(bytes) => {
                line.extend(b"\\x");
                line.extend(hex::encode(bytes).bytes());
            }
            ValueRef::Text(text) => {
                csv::quote(&mut line, std::str::from_utf8(text).map_err(|_| no_text(table))?);
            }
        }
    }
    line.push(b'\n');
    Ok(line)
}

/// The archive's tables with their columns. Their rows are in temporary tables of the same names.
type StagedTables = BTreeMap<String, Vec<String>>;

fn stage(
    connection: &Connection,
    catalogue: &Catalogue,
    tables: &mut Arriving,
) -> Result<StagedTables, Failure> {
    let mut staged = StagedTables::new();
    while let Some(Table { name, columns: header, mut rows }) =
        tables.blocking_recv().ok_or_else(abandoned)?
    {
        let table = catalogue.tables.get(&name).filter(|table| !table.is_lookup);
        if table.is_none() {
            return Err(bad_archive(format!(
                "the database has no table `{name}` for rows of tenants: apply its migrations first"
            )));
        }
        let known = columns(catalogue, &name);
        if let Some(unknown) = header.iter().find(|column| !known.contains(column)) {
            return Err(bad_archive(format!(
                "table `{name}` has no column `{unknown}` in this database: apply its migrations first"
            )));
        }
        let (table, names, width) = (quoted(&name), listed(&header), header.len());
        match staged.get(&name) {
            Some(columns) if *columns == header => {}
            Some(_) => {
                return Err(bad_archive(format!(
                    "the archive's files of table `{name}` differ in their columns"
                )));
            }
            None => {
                // Columns without types keep every value as it came.
                batch(connection, &format!("CREATE TEMP TABLE {table} ({names})"))?;
                staged.insert(name.clone(), header);
            }
        }
        let places: Vec<String> = (1..=width).map(|place| format!("?{place}")).collect();
        let sql = format!("INSERT INTO temp.{table} ({names}) VALUES ({})", places.join(", "));
        let mut statement = connection.prepare(&sql).map_err(failure)?;
        while let Some(rows) = rows.blocking_recv() {
            for row in rows {
                if row.len() != width {
                    return Err(bad_archive(format!(
                        "a row of table `{name}` has too few or too many fields"
                    )));
                }
                statement.execute(params_from_iter(row.into_iter().map(value))).map_err(failure)?;
            }
        }
    }
    Ok(staged)
}

fn value(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Quoted(text) => Value::Text(text),
        Field::Bare(text) => match bytes(&text) {
            Some(bytes) => Value::Blob(bytes),
            None => match (text.parse(), text.parse()) {
                (Ok(integer), _) => Value::Integer(integer),
                (_, Ok(real)) => Value::Real(real),
                _ => Value::Text(text),
            },
        },
    }
}

/// Decodes `\x…`.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    if digits.len() % 2 != 0 {
        return None;
    }
    let pairs = digits.chunks_exact(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn replace(
    connection: &Connection,
    catalogue: &Catalogue,
    staged: &StagedTables,
    spec: &Spec,
) -> Result<(), Failure> {
    let tenant = spec.tenant.id.to_string();
    for table in catalogue.deletion_order.iter().flatten() {
        execute(connection, &format!("DELETE FROM main.{} WHERE {OWNER} = ?1", quoted(table)), [&tenant])?;
    }
    for table in catalogue.deletion_order.iter().rev().flatten() {
        let Some(columns) = staged.get(table) else { continue };
        let (name, columns) = (quoted(table), listed(columns));
        let sql =
            format!("INSERT INTO main.{name} ({OWNER}, {columns}) SELECT ?1, {columns} FROM temp.{name}");
        execute(connection, &sql, [&tenant])?;
    }
    Ok(())
}
