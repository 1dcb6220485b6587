//! Opens and migrates a database file, and maps SQLite's errors to failures. Knows no tenants.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row, SqliteConnection};
use tenantry_model::{Failure, Timestamp};

use super::catalogue;
use crate::migrations::{self, Applied, Migration};
use crate::tables::Catalogue;

/// Time that a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(10);
/// SQLite's default page size in bytes.
const PAGE: u64 = 4096;

/// Tenantry's two tables. `completed` is set in the transaction that writes a tenant's rows, and `claim` is
/// the owner tag.
const OWN_TABLES: &str = "
CREATE TABLE IF NOT EXISTS _migrations (
    position   INTEGER PRIMARY KEY,
    key        TEXT NOT NULL UNIQUE,
    version    TEXT NOT NULL,
    file       TEXT NOT NULL,
    checksum   TEXT NOT NULL,
    applied_at TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS _tenants (
    tenant_id   TEXT NOT NULL PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    claim       TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    seed        TEXT,
    completed   TEXT
) STRICT, WITHOUT ROWID;";

/// Options of connections to a file in use.
pub fn options(file: &Path, max_bytes: Option<u64>) -> SqliteConnectOptions {
    let options = durable(SqliteConnectOptions::new().filename(file))
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    match max_bytes {
        Some(bytes) => options.pragma("max_page_count", (bytes / PAGE).max(1).to_string()),
        None => options,
    }
}

/// Options of connections to a file that has no final name yet. It is flushed to the disk as a whole before
/// it is renamed, so single commits need not wait; and without a write-ahead log it stays one file.
pub fn private(file: &Path, max_bytes: Option<u64>) -> SqliteConnectOptions {
    options(file, max_bytes)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Off)
}

/// Options of read-only connections, also to a file that may carry another owner tag.
pub fn read_only(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(BUSY)
        .pragma("query_only", "ON")
        .disable_statement_logging()
}

fn durable(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .busy_timeout(BUSY)
        .foreign_keys(true)
        .statement_cache_capacity(512)
        // Overwrites deleted rows on the disk.
        .pragma("secure_delete", "ON")
        .disable_statement_logging()
}

/// Migrates an existing file and returns its tables.
pub async fn migrated(
    file: &Path,
    max_bytes: Option<u64>,
    migrations: &[Migration],
) -> Result<Catalogue, Failure> {
    // Migrations that rebuild a table need foreign keys off; `migrate` checks them afterwards.
    let mut connection = options(file, max_bytes).foreign_keys(false).connect().await.map_err(failure)?;
    let catalogue = migrate(&mut connection, migrations).await?;
    connection.close().await.map_err(failure)?;
    Ok(catalogue)
}

/// Creates the file, readable by its owner alone, if it is missing.
pub fn create(file: &Path) -> Result<(), Failure> {
    try_create(file).map_err(|error| {
        Failure::retryable(
            "cannot_open",
            format!("cannot open the database file {}: {error}", file.display()),
        )
    })
}

fn try_create(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let fresh = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    match fresh {
        Ok(_) => fs::File::open(folder)?.sync_all(),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            fs::OpenOptions::new().append(true).open(file).map(drop)
        }
        Err(error) => Err(error),
    }
}

/// Applies the migrations to an empty database in memory, which finds their errors and their tables before a
/// file is touched.
pub async fn rehearse(migrations: &[Migration]) -> Result<Catalogue, Failure> {
    let options = durable(SqliteConnectOptions::new().in_memory(true)).foreign_keys(false);
    let mut connection = options.connect().await.map_err(failure)?;
    migrate(&mut connection, migrations).await
}

/// Applies missing migrations, each file in one transaction with its record. The transaction takes the write
/// lock before it reads, so that two processes cannot apply the same file.
pub async fn migrate(
    connection: &mut SqliteConnection,
    migrations: &[Migration],
) -> Result<Catalogue, Failure> {
    loop {
        connection.execute("BEGIN IMMEDIATE").await.map_err(failure)?;
        let next = apply_next(connection, migrations).await;
        let end = if next.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = connection.execute(end).await.map_err(failure);
        match next {
            Ok(more) => {
                ended?;
                if !more {
                    return catalogue::read(connection).await;
                }
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Applies the first missing file. False: there is none.
async fn apply_next(connection: &mut SqliteConnection, migrations: &[Migration]) -> Result<bool, Failure> {
    sqlx::raw_sql(OWN_TABLES).execute(&mut *connection).await.map_err(failure)?;
    let applied = sqlx::query("SELECT key, file, checksum FROM _migrations ORDER BY position")
        .fetch_all(&mut *connection)
        .await
        .map_err(failure)?;
    let applied: Vec<Applied> = applied
        .iter()
        .map(|row| Applied { key: row.get("key"), file: row.get("file"), checksum: row.get("checksum") })
        .collect();
    let Some(migration) = migrations::pending(migrations, &applied)?.first() else { return Ok(false) };
    let bad = |failure| migrations::bad(migration, failure);
    sqlx::raw_sql(AssertSqlSafe(migration.sql.as_str()))
        .execute(&mut *connection)
        .await
        .map_err(|error| bad(failure(error)))?;
    catalogue::read(connection).await.map_err(bad)?;
    let broken =
        sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut *connection).await.map_err(failure)?;
    if let Some(row) = broken.first() {
        let table: String = row.get(0);
        return Err(bad(Failure::fatal("", format!("rows of `{table}` refer to missing rows"))));
    }
    sqlx::query("INSERT INTO _migrations (key, version, file, checksum, applied_at) VALUES (?, ?, ?, ?, ?)")
        .bind(migration.key())
        .bind(&migration.version)
        .bind(&migration.file)
        .bind(&migration.checksum)
        .bind(Timestamp::now().to_string())
        .execute(connection)
        .await
        .map_err(failure)?;
    tracing::info!(file = migration.file, "migration applied");
    Ok(true)
}

/// Maps an error of SQLite to a failure. Messages name tables and columns, never values.
pub fn failure(error: sqlx::Error) -> Failure {
    let sqlx::Error::Database(database) = &error else {
        return match error {
            sqlx::Error::PoolTimedOut => {
                Failure::retryable("busy", "all connections to the database file are in use; try again")
            }
            sqlx::Error::WorkerCrashed | sqlx::Error::Io(_) | sqlx::Error::PoolClosed => {
                Failure::unknown("io_error", format!("the connection to the database file broke: {error}"))
            }
            // Other errors may quote values.
            _ => Failure::fatal("database", "SQLite returned a result of an unexpected form"),
        };
    };
    let code: i32 = database.code().and_then(|code| code.parse().ok()).unwrap_or(0);
    let text = database.message();
    // The low byte is the primary result code: https://www.sqlite.org/rescode.html
    match code & 0xff {
        5 | 6 => Failure::retryable(
            "busy",
            "the database file is locked by another process; try again, or end that process",
        ),
        8 => Failure::retryable("read_only", "the database file or its folder is read-only: allow writing"),
        10 => Failure::retryable(
            "io_error",
            "the database file cannot be read or written: check the disk and its space",
        ),
        13 => Failure::retryable(
            "disk_full",
            "the database file cannot grow: free space on the disk, or raise its `max_bytes`",
        ),
        14 => Failure::retryable(
            "cannot_open",
            "the database file cannot be opened: check that its folder exists and is writable",
        ),
        11 | 26 => Failure::fatal(
            "corrupt",
            "the database file is damaged or not a SQLite database: restore it from a backup",
        ),
        19 => Failure::invalid("constraint", constraint(text)),
        18 => Failure::invalid("too_big", "a value is too long"),
        // Errors in SQL. The text quotes words of the statement only.
        1 => Failure::fatal("database", text),
        _ => Failure::fatal("database", format!("SQLite answered with code {code}")),
    }
}

/// The constraint's text without the column that holds the tenant's id.
fn constraint(text: &str) -> String {
    text.replace(".tenant_id, ", ".").replace("tenant_id, ", "")
}
