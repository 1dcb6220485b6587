//! Exports one tenant's rows from a schema and loads them back, by COPY as CSV. An export reads one snapshot, in
//! transactions that each lock few tables.
//! A load fills temporary tables first and then replaces the tenant's rows in the same transaction. Both run
//! as the administrator, so they also work while the tenant is fenced.
//!
//! In shared tables `tenant_id` selects the rows. A schema or database of a tenant's own is exported as a whole: all
//! rows of all tables, in a database those of all its schemas, and the positions of sequences. Large objects belong to no schema: those of the tenant's login are
//! exported, and from a database all.

mod export;
mod large_objects;
mod paused;
mod references;
mod replace;
mod sequences;
mod snapshot;

use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use futures::SinkExt as _;
use tenantry_model::{Failure, FailureClass, Isolation, Write};
use tenantry_postgres::Session;
use tokio::io::{AsyncRead, AsyncReadExt as _, BufReader};

use self::large_objects::Owners;
use self::paused::Paused;
use self::replace::{Staged, replace};
use super::catalogue;
use super::failure::failure;
use super::name::Name;
use super::server::{Server, run};
use crate::tables::{Catalogue, OWNER, Table, in_parentheses, quoted};
use tenantry_provider::csv;
use tenantry_provider::transfer::{Content, Sink, Source, bad_archive, broken};
use tenantry_provider::verbs::Spec;

/// Archive format of rows from PostgreSQL tables.
pub const FORM: &str = "postgres_tables";
/// Size in bytes of the chunks sent to the server.
const CHUNK: usize = 64 << 10;

/// Settings of both transactions: no time limits, and one format for times, numbers, amounts and documents.
fn settings(path: &str) -> String {
    format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL timezone = 'UTC';
         SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL extra_float_digits = 1;
         SET LOCAL bytea_output = 'hex'; SET LOCAL lc_monetary = 'C'; SET LOCAL xmloption = 'content'; SET LOCAL {path}"
    )
}

/// Location of a tenant's rows, with a connection to it.
pub struct RowsConnection {
    /// A connection to their database, used for nothing else.
    pub connection: Session,
    /// Its server.
    pub server: Arc<Server>,
    /// Their database.
    pub database: Name,
    /// Their main schema.
    pub schema: String,
    /// The search path with which statements find them.
    pub path: String,
    /// What is in this schema.
    pub isolation: Isolation,
    /// In tables that tenants share: name of the advisory lock that a removal of this tenant takes.
    pub shared: Option<String>,
}

/// Exports the tenant's rows into `sink`.
pub async fn export(mut rows: RowsConnection, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
    let content = export::rows(&mut rows, spec, sink).await?;
    rows.connection.close().await;
    Ok(content)
}

/// Replaces the tenant's rows by those of `source`. The registry has nothing to write.
pub async fn load(
    mut rows: RowsConnection,
    spec: &Spec,
    source: &mut dyn Source,
) -> Result<Vec<Write>, Failure> {
    load_rows(&mut rows, spec, source).await?;
    rows.connection.close().await;
    Ok(Vec::new())
}

async fn load_rows(rows: &mut RowsConnection, spec: &Spec, source: &mut dyn Source) -> Result<(), Failure> {
    let RowsConnection { connection, server, schema, path, isolation, shared, .. } = rows;
    let (tenant, isolation) = (spec.tenant.id, *isolation);
    run(connection, format!("BEGIN; {}", settings(path))).await?;
    let catalogue = catalogue::read_tables(connection, schema, isolation).await?;
    let types = match catalogue.is_whole {
        true => Paused::in_types(connection, schema).await?,
        false => Paused::default(),
    };
    run(connection, types.pause).await?;
    let (mut staged, mut positions, mut objects) = (Vec::new(), Vec::new(), false);
    while let Some(mut file) = source.next().await? {
        let mut bytes = BufReader::with_capacity(CHUNK, &mut file.bytes);
        if file.path == sequences::FILE {
            positions = sequences::read(&mut bytes).await?;
            continue;
        }
        if large_objects::is_file(&file.path) {
            large_objects::stage(connection, &mut bytes, !objects).await.map_err(unfit)?;
            objects = true;
            continue;
        }
        let name = csv::table_of(&file.path)?;
        let columns = csv::header(&mut bytes).await?;
        let table = known(&catalogue, &name, &csv::schema_of(&file.path)?, &columns)?;
        let same = |known: &&Staged| known.name == name && known.columns == columns;
        let copy = match staged.iter().find(same) {
            Some(known) => known.copy.clone(),
            None => {
                let copy = format!("tenantry_load_{}", staged.len());
                let new = Staged { name, columns: columns.clone(), copy: copy.clone(), table };
                run(connection, new.create(schema)).await.map_err(unfit)?;
                staged.push(new);
                copy
            }
        };
        fill(connection, &copy, &columns, &mut bytes).await?;
    }
    replace(connection, &catalogue, &staged, schema, tenant).await.map_err(unfit)?;
    run(connection, types.restore).await?;
    if catalogue.is_whole {
        sequences::set(connection, schema, &positions).await.map_err(unfit)?;
        refresh_views(connection, schema).await.map_err(unfit)?;
    }
    let owners = Owners { role: &Name::new(&spec.name)?, all: isolation == Isolation::Database };
    large_objects::replace(connection, owners, objects).await.map_err(unfit)?;
    if let Some(word) = shared {
        // A removal does not see uncommitted rows, and shared tables outlive it. With the lock, a commit
        // whose process died comes either before the removal or after a removal that found nothing to delete.
        server.lock_until_closed(connection, word).await?;
    }
    run(connection, "COMMIT".to_owned()).await.map_err(unfit)
}

/// The table of a file with these columns, in the main schema or in `schema`. Returns an error if the database lacks the
/// table or a column.
fn known<'a>(
    catalogue: &'a Catalogue,
    name: &str,
    schema: &Option<String>,
    columns: &[String],
) -> Result<&'a Table, Failure> {
    let is_there = |table: &&Table| table.elsewhere.as_ref().map(|[schema, _]| schema) == schema.as_ref();
    let table = catalogue.tables.get(name).filter(is_there).ok_or_else(|| {
        bad_archive(format!("the database has no table `{name}`: apply its migrations first"))
    })?;
    let known = exported(table);
    for column in columns.iter().filter(|column| !known.contains(&column.as_str())) {
        return Err(bad_archive(match table.owner.filter(|_| column == OWNER) {
            Some(_) if catalogue.is_whole => continue,
            Some(_) => format!(
                "table `{name}` has rows with another `{OWNER}` than the tenant's, which cannot be shared by tenants"
            ),
            None => format!(
                "table `{name}` has no column `{column}` in this database: apply its migrations first"
            ),
        }));
    }
    Ok(table)
}

/// Sends the rest of a file into a temporary table.
async fn fill(
    connection: &mut Session,
    table: &str,
    columns: &[String],
    bytes: &mut (impl AsyncRead + Unpin),
) -> Result<(), Failure> {
    let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    let copy = format!("COPY pg_temp.{table} {} FROM STDIN (FORMAT csv)", in_parentheses(&columns));
    let mut into = pin!(connection.copy_in(&copy).await.map_err(failure)?);
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        if bytes.read_buf(&mut chunk).await.map_err(|error| broken(&error))? == 0 {
            break;
        }
        into.send(chunk.freeze()).await.map_err(|error| failure(error.into()))?;
    }
    into.finish().await.map(drop).map_err(|error| unfit(failure(error.into())))
}

/// Computes materialized views again from the loaded rows, in the order of their creation.
async fn refresh_views(connection: &mut Session, schema: &str) -> Result<(), Failure> {
    let views: Vec<String> = connection
        .all(
            concat!(
                "SELECT format('REFRESH MATERIALIZED VIEW %s.%I', relnamespace::regnamespace, relname) FROM pg_class
                 WHERE ",
                in_schemas!(class "pg_class"),
                " AND relkind = 'm' AND relispopulated ORDER BY oid"
            ),
            &[&schema],
        )
        .await
        .map_err(failure)?;
    for refresh in views {
        run(connection, refresh).await?;
    }
    Ok(())
}

/// The columns that an archive has. Numbers from sequences are among them: rows keep theirs.
fn exported(table: &Table) -> Vec<&str> {
    table.columns.iter().filter(|column| !column.computed).map(|column| column.name.as_str()).collect()
}

fn listed<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| quoted(name.as_ref())).collect::<Vec<_>>().join(", ")
}

fn unfit(failure: Failure) -> Failure {
    match failure.class {
        _ if failure.code == "bad_archive" => failure,
        FailureClass::Invalid | FailureClass::Fatal => {
            bad_archive(format!("the archive's rows do not fit this database's tables: {}", failure.message))
        }
        _ => failure,
    }
}
