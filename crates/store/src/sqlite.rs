//! SQLite: opens the file with the right settings, and runs queries on a fixed number of reading threads. A query is
//! never repeated after an error.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::failed::{Cause, Failed};
use super::query::Parameter;
use super::row::Row;

/// Time for which a statement waits for another connection's lock before it fails.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for which a query waits for a free thread before it fails.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of statements that a connection keeps prepared.
const PREPARED: usize = 1024;

/// Purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads and writes; creates the file if it is missing.
    Write,
    /// Reads only; an error if the file is missing.
    Read,
    /// Fails at once if another connection has the file open.
    Exclusive,
}

/// Opens a connection in WAL mode, with durable commits (`synchronous = FULL`).
pub fn open(path: &Path, access: Access) -> Result<Connection, Failed> {
    let mode = match access {
        Access::Write | Access::Exclusive => {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        }
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(if access == Access::Exclusive { Duration::ZERO } else { LOCK_TIMEOUT })?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    if access == Access::Exclusive {
        connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
    }
    // Few, large checkpoints, because each one writes the same frequently changed pages again.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA foreign_keys = on; PRAGMA synchronous = FULL; PRAGMA secure_delete = on;
         PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -65536",
    )?;
    Ok(connection)
}

/// Whether another connection, of any process, has this file open.
pub fn is_open_elsewhere(path: &Path) -> Result<bool, Failed> {
    let opened = open(path, Access::Exclusive).and_then(|connection| {
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(())
    });
    match opened {
        Err(Failed { cause: Cause::Unavailable, .. }) => Ok(true),
        other => other.map(|()| false),
    }
}

/// Runs a query and converts each row with `read`.
pub fn query<T>(
    connection: &Connection,
    text: &str,
    values: &[Parameter],
    read: impl Fn(&Row<'_>) -> Result<T, Failed>,
) -> Result<Vec<T>, Failed> {
    let mut statement = connection.prepare_cached(text)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(&Row::Sqlite(row))?);
    }
    Ok(all)
}

type Job = Box<dyn FnOnce(&Connection) + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

impl Shared {
    /// Waits for the next job; returns none once the queue is closed and empty.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            match queue.jobs.pop_front() {
                Some(job) => return Some(job),
                None if queue.closed => return None,
                None => self.ready.wait(&mut queue),
            }
        }
    }
}

/// The reading threads, each with its own connection, and the queue that they share.
pub struct Threads {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Opens `count` connections (at least one) and starts a thread for each.
    pub fn start(path: &Path, count: u32) -> Result<Self, Failed> {
        let started = Self { shared: Arc::default(), threads: Mutex::default() };
        for _ in 0..count.max(1) {
            let (connection, shared) = (open(path, Access::Read)?, Arc::clone(&started.shared));
            let read = move || {
                while let Some(job) = shared.next() {
                    job(&connection);
                }
            };
            let thread = std::thread::Builder::new().name("sqlite-read".to_owned()).spawn(read);
            let thread = thread.map_err(|why| Failed {
                cause: Cause::Unavailable,
                message: format!("a thread cannot be started: {why}"),
            })?;
            started.threads.lock().push(thread);
        }
        Ok(started)
    }

    /// Runs a query on one of the threads and converts each row with `read`. If the caller drops the future before
    /// the query starts, the query does not run. Returns an error if no thread is free within [`QUEUE_TIMEOUT`].
    pub async fn query<T: Send + 'static>(
        &self,
        text: String,
        values: Vec<Parameter>,
        read: impl Fn(&Row<'_>) -> Result<T, Failed> + Send + 'static,
    ) -> Result<Vec<T>, Failed> {
        let (answer, answered) = oneshot::channel();
        let (start, started) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Sending fails if the caller has dropped the future, here or while the query runs.
            if start.send(()).is_ok() {
                let _ = answer.send(query(connection, &text, &values, read));
            }
        });
        {
            let mut queue = self.shared.queue.lock();
            if queue.closed {
                return Err(Failed::closed());
            }
            queue.jobs.push_back(job);
        }
        self.shared.ready.notify_one();
        match tokio::time::timeout(QUEUE_TIMEOUT, started).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Failed::closed()),
            Err(_) => {
                let message = "all reading threads are busy; try again";
                return Err(Failed { cause: Cause::Unavailable, message: message.to_owned() });
            }
        }
        answered.await.unwrap_or_else(|_| Err(Failed::closed()))
    }

    /// Runs the queries in the queue, then closes all connections.
    pub async fn close(&self) {
        self.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().try_for_each(JoinHandle::join));
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("a reading thread panicked");
        }
    }

    fn stop(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.ready.notify_all();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}
