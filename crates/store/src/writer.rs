//! The writer: one task makes all changes of a database. It commits the waiting batches together in one transaction
//! (group commit); each batch is written completely or not at all, and has its own result. For SQLite the task runs on
//! its own thread, because the connection blocks.
//!
//! Batches that change the same row are written in the order of their arrival, never in one group. A batch in the queue
//! is written even if its caller drops the future. On the leader, the writer's session holds the registry's lock and
//! loses it when the session ends.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::address::Address;
use super::commit_group::{Attempt, TRANSACTION, attempt};
use super::connection::Connection;
use super::failed::{Cause, Failed};
use super::statement::Statements;
use super::table::Schema;
use super::write_batch::{Prepared, Rejected, WriteBatch};

/// Maximum number of batches in one transaction.
const MAX_BATCHES: usize = 512;
/// Maximum size of the values in one transaction, in bytes. A larger batch is committed alone.
const MAX_BYTES: usize = 4 << 20;
/// Maximum number of batches in the queue; further callers wait.
const QUEUE: usize = 4096;
/// Time for which batches wait for a new connection before they are rejected as unavailable.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for a command, such as a heartbeat, and for a rollback.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit for a transaction. A reachable server cancels long statements earlier; this limit is for the others.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);

type Answer = oneshot::Sender<Result<(), Rejected>>;

/// A batch in the queue, and the channel for its result.
struct Job {
    batch: Prepared,
    answer: Answer,
}

/// A command for the writer's session. Commands run before waiting batches.
enum Command {
    /// Take the lock. Result: false if another session has it.
    Lead(oneshot::Sender<Result<bool, Rejected>>),
    /// Send a heartbeat. Result: the registry's epoch, or none if the session does not have the lock.
    Heartbeat(oneshot::Sender<Result<Option<i64>, Rejected>>),
    /// Close the session, which releases the lock.
    Resign(oneshot::Sender<()>),
}

/// A handle to the writer of one database.
pub struct Writer {
    schema: &'static Schema,
    queue: parking_lot::Mutex<Option<mpsc::Sender<Job>>>,
    commands: mpsc::UnboundedSender<Command>,
    leads: watch::Receiver<bool>,
    ended: parking_lot::Mutex<Option<oneshot::Receiver<()>>>,
    facts: Arc<Notify>,
}

impl Writer {
    /// Starts the writer on an open connection. `timeline` is that of its server, a number that PostgreSQL changes when
    /// a standby takes over. Returns an error if no thread can be started.
    pub fn start(
        schema: &'static Schema,
        address: Address,
        connection: Connection,
        timeline: i32,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (commands, received) = mpsc::unbounded_channel();
        let facts = Arc::new(Notify::new());
        let (leads, led) = watch::channel(false);
        let worker = Worker {
            statements: Statements::new(schema, address.dialect()),
            blocks: matches!(connection, Connection::Sqlite(_)),
            address,
            connection: Some(connection),
            timeline,
            jobs,
            commands: received,
            waiting: VecDeque::new(),
            facts: Arc::clone(&facts),
            leads,
        };
        let ended = worker.start()?;
        Ok(Self { schema, queue: Some(queue).into(), commands, leads: led, ended: Some(ended).into(), facts })
    }

    /// Writes a batch. Returns once it is durable, or why it was rejected.
    pub async fn commit(&self, batch: WriteBatch) -> Result<(), Rejected> {
        let batch = Prepared::new(self.schema, batch)?;
        if batch.items.is_empty() {
            return Ok(());
        }
        let closed = || Rejected::Unavailable("the store is closed".to_owned());
        let queue = self.queue.lock().clone().ok_or_else(closed)?;
        let (answer, answered) = oneshot::channel();
        queue.send(Job { batch, answer }).await.map_err(|_| closed())?;
        drop(queue);
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Takes the registry's lock for the writer's session. Returns false if another session has it.
    pub async fn lead(&self) -> Result<bool, Rejected> {
        self.command(Command::Lead).await?
    }

    /// Sends a heartbeat: runs a statement, which resets the session's idle time. Returns the registry's epoch, or none
    /// if the session does not have the lock.
    pub async fn heartbeat(&self) -> Result<Option<i64>, Rejected> {
        self.command(Command::Heartbeat).await?
    }

    /// Releases the lock by closing the session; the next write opens another session.
    pub async fn resign(&self) -> Result<(), Rejected> {
        self.command(Command::Resign).await
    }

    /// Watches whether the session has the lock.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    async fn command<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Rejected> {
        let closed = || Rejected::Unavailable("the store is closed".to_owned());
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())
    }

    /// Notified after commits of events or audit records, which are then to be numbered. Several commits may cause one
    /// notification.
    pub fn facts(&self) -> Arc<Notify> {
        Arc::clone(&self.facts)
    }

    /// Accepts no more batches, writes the waiting ones, and closes the connection.
    pub async fn close(&self) {
        self.queue.lock().take();
        let ended = self.ended.lock().take();
        if let Some(ended) = ended
            && ended.await.is_err()
        {
            tracing::error!("the writer panicked");
        }
    }
}

/// The task behind a [`Writer`].
struct Worker {
    statements: Statements,
    address: Address,
    /// Whether calls of the connection block, so that the task needs its own thread.
    blocks: bool,
    /// None after the connection was lost or closed; the next use opens a new one.
    connection: Option<Connection>,
    /// Timeline of the server that the latest connection was to.
    timeline: i32,
    jobs: mpsc::Receiver<Job>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Batches that were taken from the queue and are not written yet, oldest first.
    waiting: VecDeque<Job>,
    facts: Arc<Notify>,
    leads: watch::Sender<bool>,
}

impl Worker {
    /// Starts the task. The returned channel has a message once the task has ended, and is closed if it panicked.
    fn start(self) -> std::io::Result<oneshot::Receiver<()>> {
        let (ends, ended) = oneshot::channel();
        let blocks = self.blocks;
        let run = async move {
            self.run().await;
            // Sending fails if the writer was dropped without `close`.
            let _ = ends.send(());
        };
        if blocks {
            let runtime = Handle::current();
            let thread = std::thread::Builder::new().name("sqlite-write".to_owned());
            thread.spawn(move || runtime.block_on(run))?;
        } else {
            tokio::spawn(run);
        }
        Ok(ended)
    }

    async fn run(mut self) {
        loop {
            if self.waiting.is_empty() {
                tokio::select! {
                    biased;
                    Some(command) = self.commands.recv() => self.obey(command).await,
                    job = self.jobs.recv() => match job {
                        Some(job) => self.waiting.push_back(job),
                        None => break,
                    },
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                self.obey(command).await;
            }
            while self.waiting.len() < 2 * MAX_BATCHES
                && let Ok(job) = self.jobs.try_recv()
            {
                self.waiting.push_back(job);
            }
            if !self.waiting.is_empty() {
                let group = self.take_group();
                self.write(group).await;
            }
        }
        if let Some(connection) = self.connection {
            connection.close().await;
        }
    }

    /// Runs a command and sends its result, which is lost if the caller has dropped the future.
    async fn obey(&mut self, command: Command) {
        let unavailable = |failed: Failed| Rejected::Unavailable(failed.message);
        match command {
            Command::Lead(answer) => {
                let _ = answer.send(in_time(COMMAND_TIMEOUT, self.lead()).await.map_err(unavailable));
            }
            Command::Heartbeat(answer) => {
                let _ = answer.send(in_time(COMMAND_TIMEOUT, self.heartbeat()).await.map_err(unavailable));
            }
            Command::Resign(answer) => {
                self.leads.send_replace(false);
                if let Some(connection) = self.connection.take() {
                    connection.close().await;
                }
                let _ = answer.send(());
            }
        }
    }

    async fn lead(&mut self) -> Result<bool, Failed> {
        // PostgreSQL counts how often a session takes an advisory lock; taken twice, it must be released twice.
        if *self.leads.borrow() {
            return Ok(true);
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let locked = connection.lock().await?;
        self.connection = Some(connection);
        self.leads.send_replace(locked);
        Ok(locked)
    }

    async fn heartbeat(&mut self) -> Result<Option<i64>, Failed> {
        let mut connection = self.begin().await?;
        let epoch = connection.epoch().await?;
        connection.rollback().await?;
        self.connection = Some(connection);
        Ok(self.leads.borrow().then_some(epoch))
    }

    /// Opens a connection. If its server has another timeline than the last one, a standby has taken over and may lack
    /// commits that this process has seen. The process then stops being the leader, and the next leader starts from the
    /// rows that the new server has.
    async fn open(&mut self) -> Result<Connection, Failed> {
        let mut connection = Connection::open(&self.address).await?;
        let timeline = connection.timeline().await?;
        if std::mem::replace(&mut self.timeline, timeline) != timeline {
            tracing::warn!(
                database = self.address.place(),
                timeline,
                "another database server has taken over; this process is no longer the leader"
            );
            self.leads.send_replace(false);
        }
        Ok(connection)
    }

    /// Returns a connection in a new transaction. If the connection is lost, opens another one, and retries for
    /// [`RECONNECT_TIMEOUT`]; no commit is in doubt at this point.
    async fn begin(&mut self) -> Result<Connection, Failed> {
        if let Some(mut connection) = self.connection.take() {
            match in_time(RECONNECT_TIMEOUT, connection.begin()).await {
                Ok(()) => return Ok(connection),
                Err(failed) if failed.cause == Cause::Lost => {}
                Err(failed) => {
                    self.connection = Some(connection);
                    return Err(failed);
                }
            }
        }
        let give_up = Instant::now() + RECONNECT_TIMEOUT;
        let mut pause = Duration::from_millis(20);
        loop {
            let opened = tokio::time::timeout_at(give_up, async {
                let mut connection = self.open().await?;
                if *self.leads.borrow() && !connection.lock().await? {
                    self.leads.send_replace(false);
                }
                connection.begin().await.map(|()| connection)
            });
            match opened.await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(failed)) if Instant::now() + pause >= give_up => return Err(failed),
                Ok(Err(_)) => tokio::time::sleep(pause).await,
                Err(_) => return Err(Failed::no_answer()),
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Removes and returns the oldest waiting batches that may share a transaction: no two change the same row, and
    /// none is written before an older batch that changes one of its rows.
    fn take_group(&mut self) -> Vec<Job> {
        let mut group = Vec::new();
        let mut later = VecDeque::new();
        let (mut rows, mut bytes, mut full) = (HashSet::new(), 0, false);
        for job in self.waiting.drain(..) {
            let free = job.batch.items.iter().all(|item| !rows.contains(&item.row));
            let fits = group.is_empty()
                || group.len() < MAX_BATCHES && bytes + job.batch.bytes <= MAX_BYTES && !job.batch.alone;
            full |= !fits;
            if free && !full {
                bytes += job.batch.bytes;
                full |= job.batch.alone;
                rows.extend(job.batch.items.iter().map(|item| item.row));
                group.push(job);
            } else {
                rows.extend(job.batch.items.iter().map(|item| item.row));
                later.push_back(job);
            }
        }
        self.waiting = later;
        group
    }

    /// Writes a group and sends the result of each of its batches.
    async fn write(&mut self, group: Vec<Job>) {
        // Groups that are still to be written, a transaction for each; the last entry is next.
        let mut groups = vec![group];
        let mut retried = false;
        while let Some(mut group) = groups.pop() {
            // A group may be split into many, and heartbeats must not wait for all of them.
            while let Ok(command) = self.commands.try_recv() {
                self.obey(command).await;
            }
            let mut connection = match self.begin().await {
                Ok(connection) => connection,
                Err(failed) => {
                    groups.push(group);
                    let waiting = self.waiting.drain(..).collect();
                    groups.push(waiting);
                    return unavailable(groups, failed);
                }
            };
            let batches: Vec<&Prepared> = group.iter().map(|job| &job.batch).collect();
            let attempted = attempt(&mut connection, &mut self.statements, &batches);
            let attempted = tokio::time::timeout(COMMIT_TIMEOUT, attempted).await;
            match attempted.unwrap_or_else(|_| Err((Failed::no_answer(), TRANSACTION))) {
                Ok(Attempt::Committed(rejections)) => {
                    if group.iter().any(|job| job.batch.facts) {
                        self.facts.notify_one();
                    }
                    answer(group, rejections);
                }
                Ok(Attempt::Rejected(rejections)) => answer(group, rejections),
                // Rejected batches had already written something: write the others again without them, then each
                // rejected one alone.
                Ok(Attempt::Mixed(rejections)) => {
                    let (failed, passed): (Vec<_>, Vec<_>) =
                        group.into_iter().zip(rejections).partition(|(_, rejection)| rejection.is_some());
                    groups.extend(failed.into_iter().rev().map(|(job, _)| vec![job]));
                    if !passed.is_empty() {
                        groups.push(passed.into_iter().map(|(job, _)| job).collect());
                    }
                }
                Err((failed, table)) => {
                    let lost = failed.cause == Cause::Lost
                        || in_time(COMMAND_TIMEOUT, connection.rollback()).await.is_err();
                    // No commit was sent, so nothing is in doubt: try once more on a new connection.
                    if lost && table != TRANSACTION && !std::mem::replace(&mut retried, true) {
                        groups.push(group);
                        continue;
                    }
                    if lost || failed.cause == Cause::Unavailable {
                        self.connection = Some(connection).filter(|_| !lost);
                        groups.push(group);
                        return unavailable(groups, failed);
                    }
                    if group.len() > 1 {
                        // A batch is invalid: halve the group until this batch is alone.
                        let second = group.split_off(group.len() / 2);
                        groups.extend([second, group]);
                    } else {
                        let error = match failed.cause {
                            Cause::Conflict => Rejected::Conflict { table },
                            _ => Rejected::Invalid { table, message: failed.message },
                        };
                        answer(group, vec![Some(error)]);
                    }
                }
            }
            self.connection = Some(connection);
        }
    }
}

/// Runs work on the connection with a time limit. After the limit the error is [`Failed::no_answer`], and the
/// connection must not be used again.
async fn in_time<T>(limit: Duration, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(Failed::no_answer()))
}

/// Rejects all batches of these groups as unavailable.
fn unavailable(groups: Vec<Vec<Job>>, failed: Failed) {
    tracing::warn!(error = failed.message, "the database is unavailable");
    let error = Rejected::Unavailable(failed.message);
    for job in groups.into_iter().flatten() {
        // Sending fails if the caller has dropped the future.
        let _ = job.answer.send(Err(error.clone()));
    }
}

/// Sends each batch its result: why it was rejected, or none if it was committed.
fn answer(group: Vec<Job>, rejections: Vec<Option<Rejected>>) {
    for (job, rejection) in group.into_iter().zip(rejections) {
        let _ = job.answer.send(rejection.map_or(Ok(()), Err));
    }
}
