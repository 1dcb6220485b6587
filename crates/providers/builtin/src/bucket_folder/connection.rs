//! Connections to a bucket's index, a SQLite file, and what SQLite's errors mean for it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tenantry_model::Failure;

/// Time that a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(10);

/// Opens an index that is in use.
pub fn open(file: &Path) -> Result<Connection, Failure> {
    connect(file, OpenFlags::empty(), "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
}

/// Opens an index that has no final name yet, or creates it. The bucket is flushed to the disk as a whole
/// before it is renamed, so single commits need not wait; and without a write-ahead log it stays one file.
pub fn open_draft(file: &Path) -> Result<Connection, Failure> {
    let journal = "PRAGMA journal_mode = DELETE; PRAGMA synchronous = OFF";
    connect(file, OpenFlags::SQLITE_OPEN_CREATE, journal)
}

fn connect(file: &Path, create: OpenFlags, journal: &str) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let opened = || {
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.execute_batch(journal)?;
        // Rows of deleted objects are overwritten.
        connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON")?;
        Ok(connection)
    };
    opened().map_err(failure)
}

/// Maps an error of SQLite to a failure. Quotes no values.
pub fn failure(error: rusqlite::Error) -> Failure {
    let (code, text) = match &error {
        rusqlite::Error::SqliteFailure(error, text) => {
            (error.extended_code, text.as_deref().unwrap_or("error"))
        }
        rusqlite::Error::SqlInputError { error, msg, .. } => (error.extended_code, msg.as_str()),
        _ => {
            return Failure::fatal("database", "the bucket's index gave an answer of an unexpected form");
        }
    };
    // The low byte is the primary code: https://www.sqlite.org/rescode.html
    match code & 0xff {
        5 | 6 => Failure::retryable("busy", "the bucket's index is locked by another process"),
        8 => Failure::retryable(
            "read_only",
            "the bucket's index cannot be written: it, or its folder, is read-only",
        ),
        10 => Failure::retryable(
            "io_error",
            "the bucket's index cannot be read or written: check the disk and its space",
        ),
        13 => Failure::retryable("disk_full", "the bucket's index cannot grow: the disk is full"),
        14 => Failure::retryable(
            "cannot_open",
            "the bucket's index cannot be opened: check that its folder is there and writable",
        ),
        11 | 26 => Failure::fatal(
            "corrupt",
            "the bucket's index is damaged or not a SQLite database: restore it from a backup",
        ),
        19 => Failure::invalid("constraint", text),
        18 => Failure::invalid("too_big", "a value is too long"),
        1 => Failure::fatal("database", text),
        _ => Failure::fatal("database", format!("SQLite answered with code {code}")),
    }
}
