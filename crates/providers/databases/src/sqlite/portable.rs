//! Exports one tenant's rows from a database file and loads them back, as CSV. An export reads one
//! transaction. A load fills temporary tables first and then replaces the tenant's rows in one transaction,
//! so the file is locked only briefly.

use std::collections::BTreeMap;
use std::path::Path;

use futures::TryStreamExt as _;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{
    Arguments, AssertSqlSafe, ConnectOptions, Connection, Executor, Row, SqliteConnection, TypeInfo, ValueRef,
};
use tenantry_model::{Failure, FailureClass};
use tokio::io::BufReader;

use super::catalogue;
use super::client::{self, failure};
use crate::tables::{Catalogue, OWNER, quoted};
use tenantry_provider::csv::{self, Field};
use tenantry_provider::portable::{Content, Sink, Source, Tally, bad_archive};
use tenantry_provider::verbs::Spec;

/// Archive format of rows from SQLite tables.
pub const FORM: &str = "sqlite_tables";
/// Bytes of rows that are read ahead.
const AHEAD: i64 = 8 << 20;
/// Bytes that a value takes beside its content.
const VALUE: i64 = 100;
/// Minimum and maximum number of rows that are read ahead.
const ROWS_AHEAD: [i64; 2] = [4, 512];

/// Exports the spec's rows into `sink`.
pub async fn export(file: &Path, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
    let options = client::read_only(file).row_buffer_size(rows_ahead(file, spec).await?);
    let mut connection = options.connect().await.map_err(failure)?;
    connection.execute("BEGIN").await.map_err(failure)?;
    require_tenant(&mut connection, spec).await?;
    let catalogue = catalogue::read(&mut connection).await?;
    let mut tally = Tally::default();
    // Parents before children.
    for table in catalogue.deletion_order.iter().rev() {
        let columns = columns(&catalogue, table);
        // A table with no column but the tenant's id has nothing to export.
        if columns.is_empty() {
            continue;
        }
        let mut out = csv::Table::new(sink, &mut tally, table, columns.iter().copied());
        let sql =
            format!("SELECT {} FROM {} WHERE {OWNER} = ?1", listed(columns.iter().copied()), quoted(table));
        let query = sqlx::query(AssertSqlSafe(sql)).bind(spec.tenant.id.to_string());
        let mut rows = query.fetch(&mut connection);
        while let Some(row) = rows.try_next().await.map_err(failure)? {
            out.row(&line(&row).map_err(|_| no_text(table))?).await?;
        }
        drop(rows);
        out.end().await?;
    }
    connection.close().await.map_err(failure)?;
    Ok(tally.content())
}

/// Number of rows to read ahead, from the longest row at this moment. An estimate: longer rows may be written
/// after it.
async fn rows_ahead(file: &Path, spec: &Spec) -> Result<usize, Failure> {
    let mut connection = client::read_only(file).connect().await.map_err(failure)?;
    let catalogue = catalogue::read(&mut connection).await?;
    let mut longest = 1;
    for table in &catalogue.deletion_order {
        let columns = columns(&catalogue, table).into_iter();
        let lengths: Vec<_> = columns.map(|name| format!("max(octet_length({}))", quoted(name))).collect();
        if lengths.is_empty() {
            continue;
        }
        let sql = format!("SELECT {} FROM {} WHERE {OWNER} = ?1", lengths.join(", "), quoted(table));
        let query = sqlx::query(AssertSqlSafe(sql)).bind(spec.tenant.id.to_string());
        let found = query.fetch_one(&mut connection).await.map_err(failure)?;
        let length = |place| found.try_get::<Option<i64>, _>(place).map(Option::unwrap_or_default);
        let lengths = (0..found.len()).map(length).sum::<sqlx::Result<i64>>().map_err(failure)?;
        longest = longest.max(lengths + VALUE * found.len() as i64);
    }
    connection.close().await.map_err(failure)?;
    let [fewest, most] = ROWS_AHEAD;
    Ok((AHEAD / longest).clamp(fewest, most) as usize)
}

/// Replaces the spec's rows by those of `source`.
pub async fn load(
    file: &Path,
    max_bytes: Option<u64>,
    spec: &Spec,
    source: &mut dyn Source,
) -> Result<(), Failure> {
    let mut connection = client::options(file, max_bytes).connect().await.map_err(failure)?;
    require_tenant(&mut connection, spec).await?;
    let catalogue = catalogue::read(&mut connection).await?;
    // Writes temporary tables only, so the file stays usable.
    connection.execute("BEGIN").await.map_err(failure)?;
    let staged = stage(&mut connection, &catalogue, source).await?;
    connection.execute("COMMIT").await.map_err(failure)?;
    connection.execute("BEGIN IMMEDIATE").await.map_err(failure)?;
    require_tenant(&mut connection, spec).await?;
    // Rows may refer to later rows of the same table.
    connection.execute("PRAGMA defer_foreign_keys = ON").await.map_err(failure)?;
    replace(&mut connection, &catalogue, &staged, spec).await.map_err(unfit)?;
    connection.execute("COMMIT").await.map_err(|error| unfit(failure(error)))?;
    connection.close().await.map_err(failure)
}

async fn require_tenant(connection: &mut SqliteConnection, spec: &Spec) -> Result<(), Failure> {
    let sql = "SELECT count(*) FROM _tenants WHERE tenant_id = ?1 AND claim = ?2";
    let found: i64 = sqlx::query_scalar(sql)
        .bind(spec.tenant.id.to_string())
        .bind(&spec.claim)
        .fetch_one(connection)
        .await
        .map_err(failure)?;
    if found == 1 {
        return Ok(());
    }
    Err(Failure::invalid(
        "no_such_tenant",
        "the tenant has no rows in this database; repair the tenant if it should",
    ))
}

/// Names of a table's writable columns.
fn columns<'a>(catalogue: &'a Catalogue, table: &str) -> Vec<&'a str> {
    let columns = catalogue.tables.get(table).map(|table| table.columns.as_slice()).unwrap_or_default();
    columns.iter().filter(|column| !column.generated).map(|column| column.name.as_str()).collect()
}

fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
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
fn line(row: &SqliteRow) -> sqlx::Result<Vec<u8>> {
    let mut line = Vec::new();
    for place in 0..row.len() {
        if place > 0 {
            line.push(b',');
        }
        let value = row.try_get_raw(place)?;
        let kind = value.type_info();
        // SQLite types belong to values, not columns.
        match kind.name() {
            _ if value.is_null() => {}
            "INTEGER" => line.extend(row.try_get_unchecked::<i64, _>(place)?.to_string().bytes()),
            "REAL" => line.extend(format!("{:?}", row.try_get_unchecked::<f64, _>(place)?).bytes()),
            "BLOB" => {
                line.extend(b"\\x");
                line.extend(hex::encode(row.try_get_unchecked::<&[u8], _>(place)?).bytes());
            }
            _ => {
                let text = std::str::from_utf8(row.try_get_unchecked::<&[u8], _>(place)?);
                csv::quote(&mut line, text.map_err(|error| sqlx::Error::Decode(Box::new(error)))?);
            }
        }
    }
    line.push(b'\n');
    Ok(line)
}

/// The archive's tables with their columns. Their rows are in temporary tables of the same names.
type StagedTables = BTreeMap<String, Vec<String>>;

async fn stage(
    connection: &mut SqliteConnection,
    catalogue: &Catalogue,
    source: &mut dyn Source,
) -> Result<StagedTables, Failure> {
    let mut staged = StagedTables::new();
    while let Some(file) = source.next().await? {
        let table = csv::table_of(&file.path)?;
        let mut bytes = BufReader::new(file.bytes);
        let header = csv::header(&mut bytes).await?;
        if !catalogue.tables.contains_key(&table) {
            return Err(bad_archive(format!(
                "the database has no table `{table}`: apply its migrations first"
            )));
        }
        let known = columns(catalogue, &table);
        if let Some(unknown) = header.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(bad_archive(format!(
                "table `{table}` has no column `{unknown}` in this database: apply its migrations first"
            )));
        }
        // Columns without types keep every value as it came.
        let names = listed(header.iter().map(String::as_str));
        match staged.get(&table) {
            Some(columns) if *columns == header => {}
            Some(_) => {
                return Err(bad_archive(format!(
                    "the archive's files of table `{table}` differ in their columns"
                )));
            }
            None => {
                let sql = format!("CREATE TEMP TABLE {} ({names})", quoted(&table));
                connection.execute(AssertSqlSafe(sql)).await.map_err(failure)?;
                staged.insert(table.clone(), header.clone());
            }
        }
        let places: Vec<String> = (1..=header.len()).map(|place| format!("?{place}")).collect();
        let sql = format!("INSERT INTO temp.{} ({names}) VALUES ({})", quoted(&table), places.join(", "));
        while let Some(row) = csv::read(&mut bytes).await? {
            if row.len() != header.len() {
                return Err(bad_archive(format!("a row of table `{table}` has too few or too many fields")));
            }
            let query = sqlx::query_with(AssertSqlSafe(sql.as_str()), arguments(row)?);
            query.execute(&mut *connection).await.map_err(failure)?;
        }
    }
    Ok(staged)
}

fn arguments(row: Vec<Field>) -> Result<SqliteArguments, Failure> {
    let mut arguments = SqliteArguments::default();
    for field in row {
        let added = match field {
            Field::Null => arguments.add(None::<String>),
            Field::Quoted(text) => arguments.add(text),
            Field::Bare(text) => match bytes(&text) {
                Some(bytes) => arguments.add(bytes),
                None => match (text.parse::<i64>(), text.parse::<f64>()) {
                    (Ok(integer), _) => arguments.add(integer),
                    (_, Ok(real)) => arguments.add(real),
                    _ => arguments.add(text),
                },
            },
        };
        added.map_err(|_| bad_archive("a value of the archive is too big for the database"))?;
    }
    Ok(arguments)
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

async fn replace(
    connection: &mut SqliteConnection,
    catalogue: &Catalogue,
    staged: &StagedTables,
    spec: &Spec,
) -> Result<(), Failure> {
    let tenant = spec.tenant.id.to_string();
    for table in &catalogue.deletion_order {
        let sql = format!("DELETE FROM main.{} WHERE {OWNER} = ?1", quoted(table));
        let gone = sqlx::query(AssertSqlSafe(sql)).bind(&tenant).execute(&mut *connection);
        gone.await.map_err(failure)?;
    }
    for table in catalogue.deletion_order.iter().rev() {
        let Some(columns) = staged.get(table) else { continue };
        let (name, columns) = (quoted(table), listed(columns.iter().map(String::as_str)));
        let sql =
            format!("INSERT INTO main.{name} ({OWNER}, {columns}) SELECT ?1, {columns} FROM temp.{name}");
        let put = sqlx::query(AssertSqlSafe(sql)).bind(&tenant).execute(&mut *connection);
        put.await.map_err(failure)?;
    }
    Ok(())
}
