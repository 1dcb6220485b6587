//! SQLite: how a file is opened, and the threads that read it. A query is handed over once, whatever it gives.

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

/// How long a statement waits for a lock before it is given up.
const BUSY: Duration = Duration::from_secs(30);
/// How long the log waits for those who read in it, before it is left for another attempt.
const READING: Duration = Duration::from_secs(5);
/// How long a query waits for a thread.
const WAIT: Duration = Duration::from_secs(10);
/// Statements that a connection keeps prepared.
const PREPARED: usize = 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To write, also into a file that is not there yet.
    Write,
    /// To read.
    Read,
    /// To see whether another connection is open.
    Exclusive,
}

/// Opens a connection.
pub fn open(path: &Path, access: Access) -> Result<Connection, Failed> {
    let mode = match access {
        Access::Write | Access::Exclusive => {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        }
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(if access == Access::Exclusive { Duration::ZERO } else { BUSY })?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    if access == Access::Exclusive {
        connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
    }
    // Fewer, larger checkpoints: each one writes the same hot pages again.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA foreign_keys = on; PRAGMA synchronous = FULL; PRAGMA secure_delete = on;
         PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -65536",
    )?;
    Ok(connection)
}

/// Whether another connection has this file open.
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

/// Folds the log into the file and empties it.
pub fn fold_log(connection: &Connection) -> Result<(), Failed> {
    connection.busy_timeout(READING)?;
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if !busy {
        return Ok(());
    }
    let message =
        "the log still holds old rows, because something reads the file all the time: end its transaction";
    Err(Failed { cause: Cause::Unavailable, message: message.to_owned() })
}

/// All rows of a query, each as `read` has it.
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
    /// The next job; none once the queue is closed and empty.
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

/// Threads that read, each with a connection of its own.
pub struct Threads {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Opens the connections and starts the threads.
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
            let thread = thread
                .map_err(|why| Failed { cause: Cause::Unavailable, message: format!("no thread: {why}") })?;
            started.threads.lock().push(thread);
        }
        Ok(started)
    }

    /// All rows of a query, each as `read` has it, by one of the threads. A query whose caller has gone is not run.
    pub async fn query<T: Send + 'static>(
        &self,
        text: String,
        values: Vec<Parameter>,
        read: impl Fn(&Row<'_>) -> Result<T, Failed> + Send + 'static,
    ) -> Result<Vec<T>, Failed> {
        let (answer, answered) = oneshot::channel();
        let (start, started) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // The caller may have given up.
            if start.send(()).is_ok() {
                // The caller may go while it is read.
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
        match tokio::time::timeout(WAIT, started).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Failed::closed()),
            Err(_) => {
                let message = "all threads that read are busy; try again";
                return Err(Failed { cause: Cause::Unavailable, message: message.to_owned() });
            }
        }
        answered.await.unwrap_or_else(|_| Err(Failed::closed()))
    }

    /// Reads what waits and closes all connections.
    pub async fn close(&self) {
        self.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().try_for_each(JoinHandle::join));
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("a reading thread ended abnormally");
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
