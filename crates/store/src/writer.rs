//! The writer: every change of a database goes through one task, which writes the batches that wait together in one
//! transaction (group commit), each wholly or not at all, and answers each by itself. To SQLite it is a thread of its own
//! that owns the connection.
//!
//! Batches that touch the same row are written in the order of their arrival, never in one group. A batch that has been handed
//! over is written, even if its caller goes away. The leader's session holds the registry's lock, and loses it when it ends.

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

/// Most batches in one transaction.
const MAX_BATCHES: usize = 512;
/// Most bytes of rows in one transaction (one batch may have more).
const MAX_BYTES: usize = 4 << 20;
/// Most batches that wait; further callers wait to hand theirs over.
const QUEUE: usize = 4096;
/// How long batches wait for a lost connection to come back before they are refused.
const RECONNECT: Duration = Duration::from_secs(5);

/// How long the session has for an answer to what is no writing.
const ASKED: Duration = Duration::from_secs(3);
/// How long a transaction may take. The server ends its statements before; this is for one that is not there any more.
const WRITTEN: Duration = Duration::from_secs(60);

type Answer = oneshot::Sender<Result<(), Rejected>>;

struct Job {
    batch: Prepared,
    answer: Answer,
}

/// What the writer's session is asked for. It comes before what waits to be written.
enum Ask {
    /// Take the lock, if no other session has it.
    Lead(oneshot::Sender<Result<bool, Rejected>>),
    /// Show that the session lives, and give the epoch if it has the lock.
    Beat(oneshot::Sender<Result<Option<i64>, Rejected>>),
    /// End the session, and the lock with it.
    Resign(oneshot::Sender<()>),
}

/// A handle to the writer of one database.
pub struct Writer {
    schema: &'static Schema,
    queue: parking_lot::Mutex<Option<mpsc::Sender<Job>>>,
    asks: mpsc::UnboundedSender<Ask>,
    leads: watch::Receiver<bool>,
    ended: parking_lot::Mutex<Option<oneshot::Receiver<()>>>,
    facts: Arc<Notify>,
}

impl Writer {
    /// Starts the writer on an open connection to a server on this timeline.
    pub fn start(
        schema: &'static Schema,
        address: Address,
        connection: Connection,
        timeline: i32,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (asks, asked) = mpsc::unbounded_channel();
        let facts = Arc::new(Notify::new());
        let (leads, led) = watch::channel(false);
        let worker = Worker {
            statements: Statements::new(schema, address.dialect()),
            blocks: matches!(connection, Connection::Sqlite(_)),
            address,
            connection: Some(connection),
            timeline,
            jobs,
            asked,
            waiting: VecDeque::new(),
            facts: Arc::clone(&facts),
            leads,
        };
        let ended = worker.start()?;
        Ok(Self { schema, queue: Some(queue).into(), asks, leads: led, ended: Some(ended).into(), facts })
    }

    /// Writes a batch; returns once it is durable or rejected.
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

    /// Takes the registry's lock for the writer's session. False: another session has it.
    pub async fn lead(&self) -> Result<bool, Rejected> {
        self.ask(Ask::Lead).await?
    }

    /// Shows the database that the session lives, and gives the registry's epoch. None: the lock was lost with an earlier
    /// session.
    pub async fn heartbeat(&self) -> Result<Option<i64>, Rejected> {
        self.ask(Ask::Beat).await?
    }

    /// Gives the lock back.
    pub async fn resign(&self) -> Result<(), Rejected> {
        self.ask(Ask::Resign).await
    }

    /// Whether the session has the lock, as it changes.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Rejected> {
        let closed = || Rejected::Unavailable("the store is closed".to_owned());
        let (answer, answered) = oneshot::channel();
        self.asks.send(ask(answer)).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())
    }

    /// Woken after commits with rows that are to be numbered; several at once wake it once.
    pub fn facts(&self) -> Arc<Notify> {
        Arc::clone(&self.facts)
    }

    /// Takes no more batches, writes those that wait, and closes the connection.
    pub async fn close(&self) {
        self.queue.lock().take();
        let ended = self.ended.lock().take();
        if let Some(ended) = ended
            && ended.await.is_err()
        {
            tracing::error!("the writer ended abnormally");
        }
    }
}

struct Worker {
    statements: Statements,
    address: Address,
    /// Whether its connection blocks, so that it needs a thread of its own.
    blocks: bool,
    connection: Option<Connection>,
    /// Of the server that the latest connection was to.
    timeline: i32,
    jobs: mpsc::Receiver<Job>,
    asked: mpsc::UnboundedReceiver<Ask>,
    /// Handed over and not yet written, oldest first.
    waiting: VecDeque<Job>,
    facts: Arc<Notify>,
    leads: watch::Sender<bool>,
}

impl Worker {
    /// Starts it, and says by what it can be seen to have ended.
    fn start(self) -> std::io::Result<oneshot::Receiver<()>> {
        let (ends, ended) = oneshot::channel();
        let blocks = self.blocks;
        let run = async move {
            self.run().await;
            // A database that is dropped without being closed does not wait.
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
                    Some(ask) = self.asked.recv() => self.answer(ask).await,
                    job = self.jobs.recv() => match job {
                        Some(job) => self.waiting.push_back(job),
                        None => break,
                    },
                }
            }
            while let Ok(ask) = self.asked.try_recv() {
                self.answer(ask).await;
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

    /// Answers; the caller may have gone.
    async fn answer(&mut self, ask: Ask) {
        let unavailable = |failed: Failed| Rejected::Unavailable(failed.message);
        match ask {
            Ask::Lead(answer) => {
                let _ = answer.send(in_time(ASKED, self.lead()).await.map_err(unavailable));
            }
            Ask::Beat(answer) => {
                let _ = answer.send(in_time(ASKED, self.heartbeat()).await.map_err(unavailable));
            }
            Ask::Resign(answer) => {
                self.leads.send_replace(false);
                if let Some(connection) = self.connection.take() {
                    connection.close().await;
                }
                let _ = answer.send(());
            }
        }
    }

    async fn lead(&mut self) -> Result<bool, Failed> {
        // The lock counts how often it is taken.
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

    /// A new connection. If another server has taken over from the one that was known, it may lack what this process has
    /// seen there: then it leads no more, and the next leader begins with what the registry has.
    async fn open(&mut self) -> Result<Connection, Failed> {
        let mut connection = Connection::open(&self.address).await?;
        let timeline = connection.timeline().await?;
        if std::mem::replace(&mut self.timeline, timeline) != timeline {
            tracing::warn!(database = self.address.place(), "another server has taken over");
            self.leads.send_replace(false);
        }
        Ok(connection)
    }

    /// A connection that has begun a transaction. One that was lost before that is opened again: nothing is in doubt.
    async fn begin(&mut self) -> Result<Connection, Failed> {
        if let Some(mut connection) = self.connection.take() {
            match in_time(RECONNECT, connection.begin()).await {
                Ok(()) => return Ok(connection),
                Err(failed) if failed.cause == Cause::Lost => {}
                Err(failed) => {
                    self.connection = Some(connection);
                    return Err(failed);
                }
            }
        }
        let give_up = Instant::now() + RECONNECT;
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

    /// The oldest batches that may be in one transaction: no two touch the same row, and none overtakes another that
    /// touches one of its rows.
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

    /// Writes a group and answers each of its batches.
    async fn write(&mut self, group: Vec<Job>) {
        // What is still to be written, as groups that go into one transaction each; the next one last.
        let mut groups = vec![group];
        let mut retried = false;
        while let Some(mut group) = groups.pop() {
            // A group may fall into many groups, and signs of life must not wait for all of them.
            while let Ok(ask) = self.asked.try_recv() {
                self.answer(ask).await;
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
            let attempted = tokio::time::timeout(WRITTEN, attempted).await;
            match attempted.unwrap_or_else(|_| Err((Failed::no_answer(), TRANSACTION))) {
                Ok(Attempt::Committed(rejections)) => {
                    if group.iter().any(|job| job.batch.facts) {
                        self.facts.notify_one();
                    }
                    answer(group, rejections);
                }
                Ok(Attempt::Rejected(rejections)) => answer(group, rejections),
                // Some were rejected after they had written something: the others again without them, and they alone.
                Ok(Attempt::Mixed(rejections)) => {
                    let (failed, passed): (Vec<_>, Vec<_>) =
                        group.into_iter().zip(rejections).partition(|(_, rejection)| rejection.is_some());
                    groups.extend(failed.into_iter().rev().map(|(job, _)| vec![job]));
                    if !passed.is_empty() {
                        groups.push(passed.into_iter().map(|(job, _)| job).collect());
                    }
                }
                Err((failed, table)) => {
                    let lost =
                        failed.cause == Cause::Lost || in_time(ASKED, connection.rollback()).await.is_err();
                    // No commit was sent, so nothing is in doubt: once more, on a new connection.
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
                        // One of them is at fault: halve until it is alone.
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

/// Runs work on the connection with a time limit. After an error without an answer the connection must not be
/// used again.
async fn in_time<T>(limit: Duration, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(Failed::no_answer()))
}

fn unavailable(groups: Vec<Vec<Job>>, failed: Failed) {
    tracing::warn!(error = failed.message, "the database is unavailable");
    let error = Rejected::Unavailable(failed.message);
    for job in groups.into_iter().flatten() {
        // A caller that has gone away needs no answer.
        let _ = job.answer.send(Err(error.clone()));
    }
}

fn answer(group: Vec<Job>, rejections: Vec<Option<Rejected>>) {
    for (job, rejection) in group.into_iter().zip(rejections) {
        let _ = job.answer.send(rejection.map_or(Ok(()), Err));
    }
}
