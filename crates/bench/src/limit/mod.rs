//! The limit of an onboarding: the same rows in the same commits, written with sqlx without planning, encryption,
//! checks, reads and HTTP. The difference to it is the cost of the product.

mod base;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::sample::{Base, Cell, Piece, Sample};
use crate::sandbox::{Sandbox, Store};
use crate::script::Script;
use base::{Connection, Value};

/// Most commits of onboardings in one transaction.
const MAX_GROUP: usize = 512;

/// Rows of one onboarding, by commit and change.
type Tenant = Vec<Vec<Vec<Vec<Value>>>>;

/// Sample, script and sandbox of the limit.
pub struct Limit {
    sample: Sample,
    script: Arc<Script>,
    sandbox: Sandbox,
    /// Last sequence number of an event or audit record.
    number: AtomicI64,
}

/// A connection, of one worker or shared by all.
#[derive(Clone)]
struct Shared(Arc<Mutex<Connection>>);

impl Limit {
    /// A limit on this sandbox, whose server has created the sample's tenant and has stopped.
    pub fn new(sandbox: Sandbox, mut sample: Sample) -> Result<Self> {
        let script = Arc::new(Script::new(&mut sample)?);
        Ok(Self { sample, script, sandbox, number: AtomicI64::new(1_000_000) })
    }

    /// The commits and rows.
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// The sample.
    pub fn sample(&self) -> &Sample {
        &self.sample
    }

    /// Removes the sandbox.
    pub async fn remove(self) -> Result<()> {
        self.sandbox.remove().await
    }

    /// Rows of a new tenant.
    fn tenant(&self) -> Tenant {
        let fresh = self.sample.fill();
        let base = self.number.fetch_add(2, Ordering::Relaxed);
        let value = |cell: &Cell| match cell {
            Cell::Null => Value::Null,
            Cell::Int(value) => Value::Int(*value),
            Cell::Bool(value) => Value::Bool(*value),
            Cell::Number(n) => Value::Int(base + n),
            Cell::Text(pieces) => {
                let text: String = pieces
                    .iter()
                    .map(|piece| match piece {
                        Piece::Fixed(text) => text.as_str(),
                        Piece::Hole(n) => fresh[*n].as_str(),
                    })
                    .collect();
                Value::Text(text.into())
            }
        };
        let row = |row: &Vec<Cell>| row.iter().map(value).collect::<Vec<_>>();
        let commits = self.script.commits.iter();
        commits
            .map(|commit| {
                let changes = commit.changes.iter();
                changes.map(|change| change.rows.iter().map(row).collect()).collect()
            })
            .collect()
    }

    async fn connect(&self, base: Base) -> Result<Shared> {
        Ok(Shared(Arc::new(Mutex::new(Connection::open(&self.sandbox, base).await?))))
    }

    async fn connections(&self) -> Result<[Shared; 3]> {
        Ok([
            self.connect(Base::ALL[0]).await?,
            self.connect(Base::ALL[1]).await?,
            self.connect(Base::ALL[2]).await?,
        ])
    }

    /// Onboardings in sequence with single commits; returns the time that a caller waits, in milliseconds.
    pub async fn alone(&self, count: usize) -> Result<Vec<f64>> {
        let connections = self.connections().await?;
        let mut latencies = Vec::with_capacity(count);
        // The first one prepares the statements and does not count.
        for n in 0..=count {
            let tenant = self.tenant();
            let started = Instant::now();
            for (number, commit) in self.script.commits.iter().enumerate().filter(|(_, c)| !c.detached) {
                connections[commit.base as usize].by_itself(&self.script, number, &tenant).await?;
            }
            if n > 0 {
                latencies.push(started.elapsed().as_secs_f64() * 1e3);
            }
            for (number, commit) in self.script.commits.iter().enumerate().filter(|(_, c)| c.detached) {
                connections[commit.base as usize].by_itself(&self.script, number, &tenant).await?;
            }
        }
        close(connections).await?;
        Ok(latencies)
    }

    /// `count` onboardings, `in_flight` at a time, with one transaction per commit. On PostgreSQL each worker
    /// has its own connections; on SQLite they share one.
    pub async fn by_itself(&self, count: usize, in_flight: usize) -> Result<Duration> {
        let shared = self.connections().await?;
        let mut workers = Vec::new();
        for _ in 0..in_flight {
            workers.push(match self.sandbox.store() {
                Store::Sqlite => shared.clone(),
                Store::Postgres => [
                    self.connect(Base::Keyring).await?,
                    self.connect(Base::Registry).await?,
                    shared[2].clone(),
                ],
            });
        }
        let tenants = Arc::new((0..count).map(|_| self.tenant()).collect::<Vec<_>>());
        let next = Arc::new(AtomicUsize::new(0));
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for connections in workers {
            let (script, tenants, next) = (Arc::clone(&self.script), Arc::clone(&tenants), Arc::clone(&next));
            tasks.spawn(async move {
                while let Some(tenant) = tenants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for (number, commit) in script.commits.iter().enumerate() {
                        connections[commit.base as usize].by_itself(&script, number, tenant).await?;
                    }
                }
                anyhow::Ok(connections)
            });
        }
        let ended = tasks.join_all().await;
        let took = started.elapsed();
        for connections in ended {
            drop(connections?);
        }
        Ok(took)
    }

    /// `count` onboardings, `in_flight` at a time. Commits to the same database share a transaction with one
    /// statement per table; detached ones run beside the next onboardings.
    pub async fn grouped(&self, count: usize, in_flight: usize) -> Result<Duration> {
        let mut writers = JoinSet::new();
        let mut queues = Vec::new();
        for base in Base::ALL {
            let (queue, jobs) = mpsc::channel(4096);
            let connection = Connection::open(&self.sandbox, base).await?;
            writers.spawn(write(connection, Arc::clone(&self.script), jobs));
            queues.push(queue);
        }
        let tenants = (0..count).map(|_| Arc::new(self.tenant())).collect::<Vec<_>>();
        let (tenants, queues) = (Arc::new(tenants), Arc::new(queues));
        let next = Arc::new(AtomicUsize::new(0));
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..in_flight {
            let (script, tenants) = (Arc::clone(&self.script), Arc::clone(&tenants));
            let (queues, next) = (Arc::clone(&queues), Arc::clone(&next));
            tasks.spawn(async move {
                let mut detached = JoinSet::new();
                while let Some(tenant) = tenants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run(&script, &queues, tenant, false).await?;
                    let (script, queues, tenant) =
                        (Arc::clone(&script), Arc::clone(&queues), Arc::clone(tenant));
                    detached.spawn(async move { run(&script, &queues, &tenant, true).await });
                }
                detached.join_all().await.into_iter().collect::<Result<()>>()
            });
        }
        let ended = tasks.join_all().await;
        let took = started.elapsed();
        drop(queues);
        // A writer's error first: it explains the errors of the workers.
        for ended in writers.join_all().await.into_iter().chain(ended) {
            ended?;
        }
        Ok(took)
    }
}

async fn close(connections: [Shared; 3]) -> Result<()> {
    for Shared(connection) in connections {
        let connection = Arc::try_unwrap(connection).map_err(|_| anyhow!("a connection is still in use"))?;
        connection.into_inner().close().await?;
    }
    Ok(())
}

impl Shared {
    async fn by_itself(&self, script: &Script, number: usize, tenant: &Tenant) -> Result<()> {
        let mut connection = self.0.lock().await;
        connection.begin().await?;
        for (change, rows) in script.commits[number].changes.iter().zip(&tenant[number]) {
            let rows: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
            connection.write(&script.shapes[change.shape], change.shape, &rows).await?;
        }
        connection.commit().await
    }
}

/// A commit of an onboarding, for the writer of its database.
struct Job {
    number: usize,
    tenant: Arc<Tenant>,
    done: oneshot::Sender<()>,
}

/// Has the commits of an onboarding written, each once the one before it is durable.
async fn run(
    script: &Script,
    queues: &[mpsc::Sender<Job>],
    tenant: &Arc<Tenant>,
    detached: bool,
) -> Result<()> {
    for (number, commit) in script.commits.iter().enumerate().filter(|(_, c)| c.detached == detached) {
        let (done, durable) = oneshot::channel();
        let job = Job { number, tenant: Arc::clone(tenant), done };
        queues[commit.base as usize].send(job).await.map_err(|_| anyhow!("a writer has ended"))?;
        durable.await.context("a writer has failed")?;
    }
    Ok(())
}

/// Writes queued commits in one transaction, until the queue is closed.
async fn write(mut connection: Connection, script: Arc<Script>, mut jobs: mpsc::Receiver<Job>) -> Result<()> {
    let mut batch = Vec::new();
    while jobs.recv_many(&mut batch, MAX_GROUP).await > 0 {
        // Shapes are numbered in the order of their first use, so referenced rows are written first.
        let mut statements: BTreeMap<usize, Vec<&[Value]>> = BTreeMap::new();
        for job in &batch {
            for (change, rows) in script.commits[job.number].changes.iter().zip(&job.tenant[job.number]) {
                let all = statements.entry(change.shape).or_default();
                if all.is_empty() || !change.once {
                    all.extend(rows.iter().map(Vec::as_slice));
                }
            }
        }
        connection.begin().await?;
        for (shape, rows) in statements {
            connection.write(&script.shapes[shape], shape, &rows).await?;
        }
        connection.commit().await?;
        for job in batch.drain(..) {
            // A worker that failed no longer waits.
            let _ = job.done.send(());
        }
        // Lets the workers queue their next commits before the next batch.
        tokio::task::yield_now().await;
    }
    connection.close().await
}
