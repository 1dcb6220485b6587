//! Removes what deleted rows leave in the files of a SQLite database. Knows no tables.
//!
//! SQLite overwrites deleted rows where they stand (`secure_delete`). Two kinds of copies remain. When it distributes the
//! rows of a full page to several pages, copies stay in the unused part of a page; and the write-ahead log has pages as
//! they were before. [`purge`] overwrites the unused parts, copies the log into the file, and truncates it.

mod page;
mod purger;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};
use tenantry_provider::purge::{PurgeMethod, Purged};

pub use purger::Purger;

/// Number of times that a statement tries to get a lock that another connection has: about 5 seconds.
const TRIES: i32 = 5_000;
/// Time between two tries. Short, because a busy writer has the lock nearly all the time.
const PAUSE: Duration = Duration::from_millis(1);
/// Time in which another connection's copying of the log must end.
const WAIT_FOR_COPY: Duration = Duration::from_secs(5);
/// Number of pages that are overwritten in one transaction.
const PAGES: usize = 256;

/// Error of [`purge`]. It can be called again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PurgeError {
    /// Another connection keeps a transaction open.
    #[error(
        "old rows cannot be removed from the write-ahead log while another connection keeps a transaction open: end that \
         transaction"
    )]
    Busy,
    /// SQLite failed.
    #[error(transparent)]
    Failed(Arc<rusqlite::Error>),
    /// The process is shutting down.
    #[error("the process is shutting down; try again")]
    Stopped,
}

impl From<rusqlite::Error> for PurgeError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Failed(Arc::new(error)),
        }
    }
}

/// Removes the copies of rows that were deleted before this call from an existing database file and its write-ahead log.
/// Other connections may read and write meanwhile. Blocks the thread. The files are never opened but by SQLite: closing one would
/// give up the locks of the process's other connections.
pub fn purge(file: &Path) -> Result<Vec<Purged>, PurgeError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_handler(Some(|tries| {
        std::thread::sleep(PAUSE);
        tries < TRIES
    }))?;
    connection.execute_batch("PRAGMA secure_delete = ON")?;
    let method = if has_readable_pages(&connection)? {
        overwrite(&connection)?;
        PurgeMethod::Overwritten
    } else {
        connection.execute_batch("VACUUM")?;
        PurgeMethod::Rewritten
    };
    truncate_log(&connection)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let log = format!("{name}-wal");
    let size = |name: &str| file.with_file_name(name).metadata().map_or(0, |metadata| metadata.len());
    let (bytes, log_bytes) = (size(&name), size(&log));
    Ok(vec![
        Purged { file: name.into_owned(), method, bytes },
        Purged { file: log, method: PurgeMethod::Truncated, bytes: log_bytes },
    ])
}

/// Copies the log into the file, and truncates it. SQLite waits for readers; but while another connection copies the log, it
/// fails at once.
fn truncate_log(connection: &Connection) -> Result<(), PurgeError> {
    let until = Instant::now() + WAIT_FOR_COPY;
    while connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))? {
        if Instant::now() > until {
            return Err(PurgeError::Busy);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether pages can be read and written one by one, and told apart by their first bytes.
fn has_readable_pages(connection: &Connection) -> Result<bool, PurgeError> {
    let modules = "SELECT count(*) FROM pragma_module_list WHERE name = 'sqlite_dbpage'";
    let modules: i64 = connection.query_row(modules, [], |row| row.get(0))?;
    let numbers: i64 = connection.query_row("PRAGMA auto_vacuum", [], |row| row.get(0))?;
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    Ok(modules > 0 && numbers == 0 && pages < page::TOLD_APART)
}

/// Overwrites the unused parts of all pages.
fn overwrite(connection: &Connection) -> Result<(), PurgeError> {
    let mut used = Vec::new();
    let mut statement = connection.prepare("SELECT pgno, data FROM sqlite_dbpage")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (number, bytes) = (row.get::<_, i64>(0)?, row.get_ref(1)?.as_blob().unwrap_or_default());
        if page::unused(number, bytes).is_some_and(|part| bytes[part].iter().any(|byte| *byte != 0)) {
            used.push(number);
        }
    }
    drop(rows);
    for numbers in used.chunks(PAGES) {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let written = numbers.iter().try_for_each(|number| overwrite_page(connection, *number));
        connection.execute_batch(if written.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        written?;
    }
    Ok(())
}

/// Overwrites the unused part of a page, as it is now.
fn overwrite_page(connection: &Connection, number: i64) -> Result<(), PurgeError> {
    let mut read = connection.prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
    // None: another connection has shortened the file meanwhile.
    let bytes: Option<Vec<u8>> = read.query_row([number], |row| row.get(0)).optional()?;
    let Some(mut bytes) = bytes else { return Ok(()) };
    let Some(part) = page::unused(number, &bytes) else { return Ok(()) };
    bytes[part].fill(0);
    let mut write = connection.prepare_cached("UPDATE sqlite_dbpage SET data = ?2 WHERE pgno = ?1")?;
    write.execute(rusqlite::params![number, bytes])?;
    Ok(())
}

#[cfg(test)]
mod tests;
