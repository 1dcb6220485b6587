//! Exports one tenant's rows from a schema and loads them back, by COPY as CSV. An export reads one snapshot.
//! A load fills temporary tables first and then replaces the tenant's rows in the same transaction. Both run
//! as the administrator, filtered by the tenant's id, so they also work while the tenant is fenced.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use bytes::BytesMut;
use futures::{SinkExt as _, TryStreamExt as _};
use tenantry_model::{Failure, FailureClass, Write};
use tenantry_postgres::{Error, Session};
use tokio::io::{AsyncReadExt as _, BufReader};

use super::catalogue;
use super::failure::failure;
use super::migrate::search_path;
use super::server::{lock_until_closed, run};
use crate::tables::{Catalogue, OWNER, literal, quoted};
use tenantry_provider::csv;
use tenantry_provider::transfer::{Content, Sink, Source, Tally, bad_archive, broken};
use tenantry_provider::verbs::Spec;

/// Archive format of rows from PostgreSQL tables.
pub const FORM: &str = "postgres_tables";
/// Size in bytes of the chunks sent to the server.
const CHUNK: usize = 64 << 10;

/// Settings of both transactions: no time limits, and one format for times and numbers.
fn settings(schema: &str) -> String {
    format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL timezone = 'UTC';
         SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL extra_float_digits = 1;
         SET LOCAL bytea_output = 'hex'; SET LOCAL {}",
        search_path(schema)
    )
}

/// Location of a tenant's rows, with a connection to it.
pub struct RowsConnection {
    /// A connection to their database, used for nothing else.
    pub connection: Session,
    /// Their schema.
    pub schema: String,
    /// In tables that tenants share: name of the advisory lock that a removal of this tenant takes.
    pub shared: Option<String>,
}

/// Exports the tenant's rows into `sink`.
pub async fn export(mut rows: RowsConnection, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
    let RowsConnection { connection, schema, .. } = &mut rows;
    let content = export_rows(connection, schema, &spec.tenant.id.to_string(), sink).await?;
    rows.connection.close().await;
    Ok(content)
}

/// Replaces the tenant's rows by those of `source`. The registry has nothing to write.
pub async fn load(
    mut rows: RowsConnection,
    spec: &Spec,
    source: &mut dyn Source,
) -> Result<Vec<Write>, Failure> {
    load_rows(&mut rows, &spec.tenant.id.to_string(), source).await?;
    rows.connection.close().await;
    Ok(Vec::new())
}

async fn export_rows(
    connection: &mut Session,
    schema: &str,
    tenant: &str,
    sink: &mut dyn Sink,
) -> Result<Content, Failure> {
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}", settings(schema));
    run(connection, begin).await?;
    let catalogue = catalogue::read(connection, schema).await?;
    let writable = WritableColumns::read(connection, schema, &catalogue).await?;
    let mut tally = Tally::default();
    // Parents before children.
    for table in catalogue.deletion_order.iter().rev() {
        let columns = writable.columns(table);
        // A table with no column but the tenant's id has nothing to export.
        if columns.is_empty() {
            continue;
        }
        let mut out = csv::Table::new(sink, &mut tally, table, columns.iter().copied());
        let copy = format!(
            "COPY (SELECT {} FROM {}.{} WHERE {OWNER} = {}) TO STDOUT (FORMAT csv)",
            listed(&columns),
            quoted(schema),
            quoted(table),
            literal(tenant)
        );
        // PostgreSQL's protocol sends one row per message.
        let rows = connection.copy_out(&copy).await.map_err(failure)?;
        let mut rows = pin!(rows.map_err(Error::from));
        while let Some(row) = rows.try_next().await.map_err(failure)? {
            out.row(&row).await?;
        }
        out.end().await?;
    }
    run(connection, "COMMIT".to_owned()).await?;
    Ok(tally.content())
}

async fn load_rows(
    RowsConnection { connection, schema, shared }: &mut RowsConnection,
    tenant: &str,
    source: &mut dyn Source,
) -> Result<(), Failure> {
    run(connection, format!("BEGIN; {}", settings(schema))).await?;
    let catalogue = catalogue::read(connection, schema).await?;
    let writable = WritableColumns::read(connection, schema, &catalogue).await?;
    let mut staged = BTreeMap::new();
    while let Some(mut file) = source.next().await? {
        let table = csv::table_of(&file.path)?;
        let mut bytes = BufReader::with_capacity(CHUNK, &mut file.bytes);
        let header = csv::header(&mut bytes).await?;
        if !catalogue.tables.contains_key(&table) {
            return Err(bad_archive(format!(
                "the database has no table `{table}`: apply its migrations first"
            )));
        }
        let known = writable.columns(&table);
        if let Some(unknown) = header.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(bad_archive(format!(
                "table `{table}` has no column `{unknown}` in this database: apply its migrations first"
            )));
        }
        let columns = listed(&header.iter().map(String::as_str).collect::<Vec<_>>());
        match staged.get(&table) {
            Some(before) if *before == columns => {}
            Some(_) => {
                return Err(bad_archive(format!(
                    "the archive's files of table `{table}` differ in their columns"
                )));
            }
            None => {
                let made = format!(
                    "CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {columns} FROM {}.{} WITH NO DATA",
                    quoted(&table),
                    quoted(schema),
                    quoted(&table)
                );
                run(connection, made).await?;
                staged.insert(table.clone(), columns.clone());
            }
        }
        let copy = format!("COPY pg_temp.{} ({columns}) FROM STDIN (FORMAT csv)", quoted(&table));
        let mut into = pin!(connection.copy_in(&copy).await.map_err(failure)?);
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            if bytes.read_buf(&mut chunk).await.map_err(|error| broken(&error))? == 0 {
                break;
            }
            into.send(chunk.freeze()).await.map_err(|error| failure(error.into()))?;
        }
        into.finish().await.map_err(|error| unfit(failure(error.into())))?;
    }
    replace(connection, &catalogue, &staged, schema, tenant).await.map_err(unfit)?;
    // In shared tables all tenants use the same sequences, so one tenant's numbers must not exhaust them.
    for (table, column) in writable.numbered.iter().filter(|_| shared.is_none()) {
        let name = format!("{}.{}", quoted(schema), quoted(table));
        let sequence = format!("pg_get_serial_sequence({}, {})", literal(&name), literal(column));
        // The sequence must not return a number that a loaded row has.
        let raise = format!(
            "SELECT setval({sequence}, greatest((SELECT max({}) FROM {name}), nextval({sequence})))",
            quoted(column)
        );
        run(connection, raise).await?;
    }
    if let Some(word) = shared {
        // A removal does not see uncommitted rows, and shared tables outlive it. With the lock, a commit
        // whose process died comes either before the removal or after a removal that found nothing to delete.
        lock_until_closed(connection, word).await?;
    }
    run(connection, "COMMIT".to_owned()).await.map_err(unfit)
}

async fn replace(
    connection: &mut Session,
    catalogue: &Catalogue,
    staged: &BTreeMap<String, String>,
    schema: &str,
    tenant: &str,
) -> Result<(), Failure> {
    let (schema, tenant) = (quoted(schema), literal(tenant));
    let mut all = String::new();
    for table in &catalogue.deletion_order {
        all.push_str(&format!("DELETE FROM {schema}.{} WHERE {OWNER} = {tenant};", quoted(table)));
    }
    for table in catalogue.deletion_order.iter().rev() {
        let Some(columns) = staged.get(table) else { continue };
        all.push_str(&format!(
            "INSERT INTO {schema}.{} ({OWNER}, {columns}) OVERRIDING SYSTEM VALUE SELECT {tenant}, {columns} FROM pg_temp.{};",
            quoted(table),
            quoted(table)
        ));
    }
    run(connection, all).await
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

fn unfit(failure: Failure) -> Failure {
    match failure.class {
        FailureClass::Invalid | FailureClass::Fatal => {
            bad_archive(format!("the archive's rows do not fit this database's tables: {}", failure.message))
        }
        _ => failure,
    }
}

/// The columns that an archive can set. Numbers from sequences are among them: rows keep theirs.
struct WritableColumns {
    tables: BTreeMap<String, Vec<String>>,
    /// Columns that a sequence fills, with their tables.
    numbered: BTreeSet<(String, String)>,
}

impl WritableColumns {
    async fn read(connection: &mut Session, schema: &str, catalogue: &Catalogue) -> Result<Self, Failure> {
        let columns = concat!(
            "SELECT relname::text AS name, attname::text AS col,
                    pg_get_serial_sequence(format('%I.%I', $1, relname), attname) IS NOT NULL AS numbered
             FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
             WHERE ",
            in_schema!(class "pg_class"),
            " AND relkind IN ('r', 'p')
               AND attgenerated = '' AND attname <> $2 ORDER BY relname, attnum"
        );
        let rows = connection.rows(columns, &[&schema, &OWNER]).await.map_err(failure)?;
        let mut writable = Self { tables: BTreeMap::new(), numbered: BTreeSet::new() };
        for row in rows {
            let (table, column): (String, String) = (row.get("name"), row.get("col"));
            if !catalogue.tables.contains_key(&table) {
                continue;
            }
            if row.get("numbered") {
                writable.numbered.insert((table.clone(), column.clone()));
            }
            writable.tables.entry(table).or_default().push(column);
        }
        Ok(writable)
    }

    fn columns(&self, table: &str) -> Vec<&str> {
        self.tables.get(table).map(|columns| columns.iter().map(String::as_str).collect()).unwrap_or_default()
    }
}
