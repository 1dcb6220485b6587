//! Connections to a bucket's index, a SQLite file, and what SQLite's errors mean for it.

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use tenantry_model::Failure;

/// Time that a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(10);

/// Options of connections to an index that is in use.
pub fn in_use(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(BUSY)
        .foreign_keys(true)
        // Rows of deleted objects are overwritten.
        .pragma("secure_delete", "ON")
        .disable_statement_logging()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
}

/// Options of the connection that makes an index. The bucket is synced as a whole before it gets its name, so nothing
/// waits for the disk before that; and there is no second file that would keep the old name.
pub fn draft(file: &Path) -> SqliteConnectOptions {
    in_use(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Off)
}

/// An error of SQLite as a failure. Quotes no values.
pub fn failure(error: sqlx::Error) -> Failure {
    let sqlx::Error::Database(database) = &error else {
        return match error {
            sqlx::Error::PoolTimedOut => {
                Failure::retryable("busy", "all connections to the bucket's index are in use")
            }
            sqlx::Error::WorkerCrashed | sqlx::Error::Io(_) | sqlx::Error::PoolClosed => {
                Failure::unknown("io_error", format!("the connection to the bucket's index broke: {error}"))
            }
            _ => Failure::fatal("database", "the bucket's index gave an answer of an unexpected form"),
        };
    };
    let code: i32 = database.code().and_then(|code| code.parse().ok()).unwrap_or(0);
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
        19 => Failure::invalid("constraint", database.message()),
        18 => Failure::invalid("too_big", "a value is too long"),
        1 => Failure::fatal("database", database.message()),
        _ => Failure::fatal("database", format!("SQLite answered with code {code}")),
    }
}
