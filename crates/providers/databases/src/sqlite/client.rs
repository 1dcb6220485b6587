//! Opens and migrates a database file, and maps SQLite's errors to failures. Knows no tenants.

use std::borrow::Borrow;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Params, Row, Transaction, TransactionBehavior, params};
use tenantry_model::{Failure, Timestamp};

use super::catalogue;
use crate::migrations::{self, Applied, Migration};
use crate::tables::Catalogue;

/// Time that a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(10);
/// SQLite's default page size in bytes.
const PAGE: u64 = 4096;
/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 512;

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

/// Opens an existing file that is in use.
pub fn open(file: &Path, max_bytes: Option<u64>) -> Result<Connection, Failure> {
    let connection = connect(file, OpenFlags::empty())?;
    batch(&connection, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
    prepare(connection, max_bytes)
}

/// Opens a file that has no final name yet, or creates it. It is flushed to the disk as a whole before it is
/// renamed, so single commits need not wait; and without a write-ahead log it stays one file.
pub fn open_draft(file: &Path, max_bytes: Option<u64>) -> Result<Connection, Failure> {
    let connection = connect(file, OpenFlags::SQLITE_OPEN_CREATE)?;
    batch(&connection, "PRAGMA journal_mode = DELETE; PRAGMA synchronous = OFF")?;
    prepare(connection, max_bytes)
}

/// Opens a file to read it, also one that may carry another owner tag.
pub fn open_to_read(file: &Path) -> Result<Connection, Failure> {
    let connection = connect(file, OpenFlags::empty())?;
    batch(&connection, "PRAGMA query_only = ON")?;
    Ok(connection)
}

fn connect(file: &Path, create: OpenFlags) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let connection = Connection::open_with_flags(file, flags).map_err(failure)?;
    connection.busy_timeout(BUSY).map_err(failure)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Prepares a connection for writing. Deleted rows are overwritten on the disk.
fn prepare(connection: Connection, max_bytes: Option<u64>) -> Result<Connection, Failure> {
    batch(&connection, "PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON")?;
    if let Some(bytes) = max_bytes {
        batch(&connection, &format!("PRAGMA max_page_count = {}", (bytes / PAGE).max(1)))?;
    }
    Ok(connection)
}

/// All rows of a statement, which runs to its end.
pub fn query<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Failure> {
    let mut statement = connection.prepare_cached(sql).map_err(failure)?;
    let rows = statement.query_map(values, read).map_err(failure)?;
    rows.collect::<Result<_, _>>().map_err(failure)
}

/// The first row of a statement, which runs to its end.
pub fn first<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, Failure> {
    Ok(query(connection, sql, values, read)?.into_iter().next())
}

/// Runs a statement that returns no rows, and returns the number of rows that it changed.
pub fn execute(connection: &Connection, sql: &str, values: impl Params) -> Result<usize, Failure> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(failure)
}

/// Runs several statements without parameters.
pub fn batch(connection: &Connection, sql: &str) -> Result<(), Failure> {
    connection.execute_batch(sql).map_err(failure)
}

/// Begins a transaction that takes the write lock before it reads. Dropped, it is rolled back.
pub fn begin(connection: &Connection) -> Result<Transaction<'_>, Failure> {
    Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(failure)
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
pub fn rehearse(migrations: &[Migration]) -> Result<Catalogue, Failure> {
    let connection = prepare(Connection::open_in_memory().map_err(failure)?, None)?;
    migrate(&connection, migrations)
}

/// Applies missing migrations, each file in one transaction with its record, and returns the tables. The
/// transaction takes the write lock before it reads, so that two processes cannot apply the same file.
pub fn migrate(connection: &Connection, migrations: &[Migration]) -> Result<Catalogue, Failure> {
    // Migrations that rebuild a table need foreign keys off; they are checked after each file.
    batch(connection, "PRAGMA foreign_keys = OFF")?;
    loop {
        let transaction = begin(connection)?;
        let more = apply_next(&transaction, migrations)?;
        transaction.commit().map_err(failure)?;
        if !more {
            batch(connection, "PRAGMA foreign_keys = ON")?;
            return catalogue::read(connection);
        }
    }
}

/// Applies the first missing file. False: there is none.
fn apply_next(connection: &Connection, migrations: &[Migration]) -> Result<bool, Failure> {
    batch(connection, OWN_TABLES)?;
    let applied = "SELECT key, version, file, checksum FROM _migrations ORDER BY position";
    let applied = query(connection, applied, [], |row| {
        Ok(Applied { key: row.get(0)?, version: row.get(1)?, file: row.get(2)?, checksum: row.get(3)? })
    })?;
    let Some(migration) = migrations::pending(migrations, &applied)?.first() else { return Ok(false) };
    let bad = |failure| migrations::bad(migration, None, failure);
    for statement in &migration.statements {
        batch(connection, statement.text())
            .map_err(|failure| migrations::bad(migration, Some(statement.line), failure))?;
    }
    catalogue::read(connection).map_err(bad)?;
    let broken = first(connection, "PRAGMA foreign_key_check", [], |row| row.get::<_, String>(0))?;
    if let Some(table) = broken {
        return Err(bad(Failure::fatal("", format!("rows of `{table}` refer to missing rows"))));
    }
    let Migration { version, file, checksum, .. } = migration;
    execute(
        connection,
        "INSERT INTO _migrations (key, version, file, checksum, applied_at) VALUES (?, ?, ?, ?, ?)",
        params![migration.key(), version, file, checksum, Timestamp::now().to_string()],
    )?;
    tracing::info!(file, "migration applied");
    Ok(true)
}

/// Maps an error of SQLite to a failure. Messages name tables and columns, never values.
pub fn failure(error: impl Borrow<rusqlite::Error>) -> Failure {
    let (code, text) = match error.borrow() {
        rusqlite::Error::SqliteFailure(error, text) => {
            (error.extended_code, text.as_deref().unwrap_or("error"))
        }
        rusqlite::Error::SqlInputError { error, msg, .. } => (error.extended_code, msg.as_str()),
        // Other errors may quote values.
        _ => return Failure::fatal("database", "SQLite returned a result of an unexpected form"),
    };
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
