//! Sessions on PostgreSQL, which can send statements before earlier ones have returned, and the pool of
//! sessions for reads. Knows no table of the registry.

use std::collections::HashMap;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use futures::future::maybe_done;
use parking_lot::Mutex;
use tenantry_postgres::{Driver, Server, connect};
use tokio::sync::{Semaphore, mpsc};
use tokio_postgres::types::BorrowToSql;
use tokio_postgres::{Client, Row, Statement};

use super::failed::{Cause, Failed};
use super::query::Parameter;

/// Time after which the server cancels a statement, including its waits for locks.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time after which the server ends the session of an idle transaction.
const STOPPED: Duration = Duration::from_secs(5);
/// Time after its last use for which a session counts as connected without a check, which takes one round trip.
const BELIEVED: Duration = Duration::from_millis(100);
/// Time for which a caller waits for a session of the read pool.
const POOL_WAIT: Duration = Duration::from_secs(10);
/// Number of prepared statements that a session keeps.
const PREPARED: usize = 512;

/// Takes the leader's lock, one for each registry of a database. The first number distinguishes it from other
/// locks.
pub const LOCK: &str = "SELECT pg_try_advisory_lock(1952805492, hashtext(current_schema()))";

/// Reads the server's timeline, which changes when a standby is promoted or a backup is restored. NULL on a
/// standby.
const TIMELINE: &str = "SELECT CASE WHEN NOT pg_is_in_recovery()
    THEN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END";

/// Makes commits durable before they return, if the server's default does not. Keeps settings that wait for
/// standbys too.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'";

/// Purpose of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Writes.
    Write,
    /// Reads; the session rejects writes.
    Read,
    /// Migrations and checks of sessions: without time limits, and without settings that a pooler would not
    /// pass on.
    Plain,
}

impl Access {
    /// Options of the connection.
    fn options(self) -> Vec<String> {
        if self == Self::Plain {
            return Vec::new();
        }
        vec![
            format!("-c statement_timeout={}", PATIENCE.as_millis()),
            // A process that was stopped in a transaction must not block others by its locks.
            format!("-c idle_in_transaction_session_timeout={}", STOPPED.as_millis()),
            // A statement may be planned while the tables are empty, when a sequential scan is cheapest; the
            // plan stays in use when they have grown. Disabled scans raise the estimated costs, which must
            // not trigger JIT compilation.
            "-c enable_seqscan=off -c jit=off".to_owned(),
        ]
    }
}

/// A session on the server.
pub struct Session {
    client: Client,
    statements: HashMap<String, Statement>,
    /// Time at which the server last responded.
    used: Instant,
    driver: Driver,
}

impl Session {
    /// Opens a session.
    pub async fn open(server: &Server, access: Access) -> Result<Self, Failed> {
        Self::open_and_hear(server, access, None).await
    }

    /// Opens a session, and sends the payloads of its notifications to `heard`.
    pub async fn open_and_hear(
        server: &Server,
        access: Access,
        heard: Option<mpsc::UnboundedSender<String>>,
    ) -> Result<Self, Failed> {
        let mut server = server.clone();
        if access != Access::Plain {
            server.config.application_name("tenantry");
        }
        access.options().iter().for_each(|option| server.add_option(option));
        let (client, driver) = connect(&server, heard).await?;
        let mut session = Self { client, statements: HashMap::new(), used: Instant::now(), driver };
        match access {
            Access::Write => session.execute(DURABLE).await?,
            // As an option of the connection, the driver would take the server for one that cannot write.
            Access::Read => session.execute("SET default_transaction_read_only = on").await?,
            Access::Plain => {}
        }
        Ok(session)
    }

    /// Timeline of the server. Returns an error on a standby, which cannot write.
    pub async fn timeline(&mut self) -> Result<i32, Failed> {
        let rows = self.query(TIMELINE, &[]).await?;
        let timeline: Option<i32> = rows.first().map(|row| row.try_get(0)).transpose()?.flatten();
        let standby = "the server is a standby, which cannot write: set the URL to the primary";
        timeline.ok_or_else(|| Failed { cause: Cause::Unavailable, message: standby.to_owned() })
    }

    /// Takes the registry's lock; false if another session has it.
    pub async fn lock(&mut self) -> Result<bool, Failed> {
        let rows = self.query(LOCK, &[]).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
    }

    /// Runs statements without values.
    pub async fn execute(&mut self, sql: &str) -> Result<(), Failed> {
        self.client.batch_execute(sql).await?;
        self.used = Instant::now();
        Ok(())
    }

    /// Runs a statement and returns its rows.
    pub async fn query(&mut self, sql: &str, values: &[Parameter]) -> Result<Vec<Row>, Failed> {
        let statement = self.prepare(sql).await?;
        let rows = rows(&self.client, &statement, values).await?;
        self.used = Instant::now();
        Ok(rows)
    }

    /// Sends these statements of a transaction, and its commit if `commit` is set, without waiting for
    /// results in between. Returns one result for each, that of the commit last. After a failed statement all
    /// later ones fail, and nothing is committed.
    pub async fn pipeline<V: BorrowToSql>(
        &mut self,
        statements: Vec<(&str, Vec<V>)>,
        commit: bool,
    ) -> Result<Vec<Result<Vec<Row>, Failed>>, Failed> {
        let mut prepared = Vec::with_capacity(statements.len());
        for (sql, values) in statements {
            prepared.push((self.prepare(sql).await?, values));
        }
        let client = &self.client;
        let statements = prepared.into_iter().map(|(statement, values)| async move {
            Ok::<_, Failed>(rows(client, &statement, values).await?)
        });
        let commit = async {
            if commit {
                client.batch_execute("COMMIT").await?;
            }
            Ok(Vec::new())
        };
        let answers = in_order(statements, commit).await;
        self.used = Instant::now();
        Ok(answers)
    }

    async fn prepare(&mut self, sql: &str) -> Result<Statement, Failed> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        if self.statements.len() >= PREPARED {
            self.statements.clear();
        }
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// First column of the first row. Uses the simple protocol, because a pooler may not support prepared
    /// statements.
    pub async fn ask(&mut self, sql: &str) -> Result<Option<String>, Failed> {
        let messages = self.client.simple_query(sql).await?;
        Ok(messages.into_iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// Whether the session is connected. Checks with the server only if the last use is too long ago.
    async fn is_there(&mut self) -> bool {
        !self.client.is_closed() && (self.used.elapsed() < BELIEVED || self.execute("").await.is_ok())
    }

    /// Closes the session and waits until the connection has ended.
    pub async fn close(self) {
        let Self { client, statements, driver, .. } = self;
        drop((statements, client));
        driver.ended().await;
    }
}

/// Runs a prepared statement and returns its rows.
async fn rows<V: BorrowToSql>(
    client: &Client,
    statement: &Statement,
    values: impl IntoIterator<Item = V, IntoIter: ExactSizeIterator>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    client.query_raw(statement, values).await?.try_collect().await
}

/// Polls the futures in their order, so that their statements are sent in it, until all are ready. Returns
/// their results in the same order.
async fn in_order<F: Future<Output = T>, L: Future<Output = T>, T>(
    futures: impl Iterator<Item = F>,
    last: L,
) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(|future| Box::pin(maybe_done(future))).collect();
    let mut last = Box::pin(maybe_done(last));
    poll_fn(|context| {
        let mut ready = true;
        for future in &mut futures {
            ready &= future.as_mut().poll(context).is_ready();
        }
        ready &= last.as_mut().poll(context).is_ready();
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let outputs = futures.iter_mut().filter_map(|future| future.as_mut().take_output());
    outputs.chain(last.as_mut().take_output()).collect()
}

/// A pool of sessions for reads.
pub struct Pool {
    server: Server,
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
}

impl Pool {
    /// Opens a pool of up to `sessions` sessions (at least 1), and the first of them.
    pub async fn open(server: &Server, sessions: u32) -> Result<Self, Failed> {
        let first = Session::open(server, Access::Read).await?;
        let permits = Semaphore::new(usize::try_from(sessions.max(1)).unwrap_or(1));
        Ok(Self { server: server.clone(), idle: Mutex::new(vec![first]), permits })
    }

    /// Runs a query on a session of the pool and returns its rows.
    pub async fn query(&self, sql: &str, values: &[Parameter]) -> Result<Vec<Row>, Failed> {
        let permit = tokio::time::timeout(POOL_WAIT, self.permits.acquire()).await;
        let _permit = permit.map_err(|_| Failed::no_answer())?.map_err(|_| Failed::closed())?;
        let session = tokio::time::timeout(POOL_WAIT, self.session()).await;
        let mut session = session.unwrap_or_else(|_| Err(Failed::no_answer()))?;
        // The server cancels a slow statement. Without this limit, a lost server is noticed only when TCP
        // times out.
        let rows = tokio::time::timeout(PATIENCE + STOPPED, session.query(sql, values)).await;
        let rows = rows.unwrap_or_else(|_| Err(Failed::no_answer()));
        let is_lost = rows.as_ref().is_err_and(|failed| failed.cause == Cause::Lost);
        if !is_lost && !self.permits.is_closed() {
            self.idle.lock().push(session);
        }
        rows
    }

    async fn session(&self) -> Result<Session, Failed> {
        loop {
            let idle = self.idle.lock().pop();
            let Some(mut session) = idle else { return Session::open(&self.server, Access::Read).await };
            if session.is_there().await {
                return Ok(session);
            }
        }
    }

    /// Closes all sessions; one in use is closed after its query.
    pub async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        futures::future::join_all(idle.into_iter().map(Session::close)).await;
    }
}
