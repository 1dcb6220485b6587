//! PostgreSQL: sessions that can send statements before earlier ones are answered, and the pool that reads share.

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

/// How long a statement may run or wait for a lock before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a transaction may ask for nothing before it is ended.
const STOPPED: Duration = Duration::from_secs(5);
/// How long after its last use a session is taken to be there without asking, which costs as much as a look-up.
const BELIEVED: Duration = Duration::from_millis(100);
/// How long a caller waits for a session of the read pool.
const POOL_WAIT: Duration = Duration::from_secs(10);
/// Statements that a session keeps prepared.
const PREPARED: usize = 512;

/// The lock of the leader, one for each registry of a database: its first number is any that nothing else takes.
pub const LOCK: &str = "SELECT pg_try_advisory_lock(1952805492, hashtext(current_schema()))";

/// Which history the database's server is in: its timeline, another one after a standby was promoted or a backup restored.
/// None on a standby.
const TIMELINE: &str = "SELECT CASE WHEN NOT pg_is_in_recovery()
    THEN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END";

/// What is answered for is not lost in a crash, whatever the server does for others. A setting that waits for more is left.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'";

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To write.
    Write,
    /// To read.
    Read,
    /// To migrate or to ask about sessions: without limits, and with nothing that a pooler would not pass on.
    Plain,
}

impl Access {
    /// The session's settings.
    fn options(self) -> Vec<String> {
        if self == Self::Plain {
            return Vec::new();
        }
        vec![
            format!("-c statement_timeout={}", PATIENCE.as_millis()),
            // A process that was stopped in a transaction must not hold its locks against the others.
            format!("-c idle_in_transaction_session_timeout={}", STOPPED.as_millis()),
            // Statements are planned once, perhaps while the tables are still empty and reading them whole is cheapest.
            // Nothing here wants that; and what plans are then thought to cost must not have them compiled.
            "-c enable_seqscan=off -c jit=off".to_owned(),
        ]
    }
}

/// A session.
pub struct Session {
    client: Client,
    statements: HashMap<String, Statement>,
    /// When it was last known to be there.
    used: Instant,
    driver: Driver,
}

impl Session {
    /// Opens one.
    pub async fn open(server: &Server, access: Access) -> Result<Self, Failed> {
        Self::open_and_hear(server, access, None).await
    }

    /// The same; the payloads of notifications are sent on.
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
            // Not an option of the connection: the driver would take it for a server that cannot write.
            Access::Read => session.execute("SET default_transaction_read_only = on").await?,
            Access::Plain => {}
        }
        Ok(session)
    }

    /// The timeline of the server. Fails on a standby, which cannot write.
    pub async fn timeline(&mut self) -> Result<i32, Failed> {
        let rows = self.query(TIMELINE, &[]).await?;
        let timeline: Option<i32> = rows.first().map(|row| row.try_get(0)).transpose()?.flatten();
        let standby = "the server is a standby, which cannot write: set the URL to the primary";
        timeline.ok_or_else(|| Failed { cause: Cause::Unavailable, message: standby.to_owned() })
    }

    /// Takes the registry's lock, if no other session has it.
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

    /// All rows of a statement.
    pub async fn query(&mut self, sql: &str, values: &[Parameter]) -> Result<Vec<Row>, Failed> {
        let statement = self.prepare(sql).await?;
        let rows = rows(&self.client, &statement, values).await?;
        self.used = Instant::now();
        Ok(rows)
    }

    /// Sends all of these statements of a transaction, and its commit if wanted, before the first is answered. Each is
    /// answered by itself, the commit last. After one that fails the others fail as well, and a commit does nothing.
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

    /// The first column of the only row, asked in the simple protocol: a pooler may not know prepared statements.
    pub async fn ask(&mut self, sql: &str) -> Result<Option<String>, Failed> {
        let messages = self.client.simple_query(sql).await?;
        Ok(messages.into_iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// Whether it is there, as far as it must be asked.
    async fn is_there(&mut self) -> bool {
        !self.client.is_closed() && (self.used.elapsed() < BELIEVED || self.execute("").await.is_ok())
    }

    /// Ends it in order.
    pub async fn close(self) {
        let Self { client, statements, driver, .. } = self;
        drop((statements, client));
        driver.ended().await;
    }
}

/// All rows of a prepared statement.
async fn rows<V: BorrowToSql>(
    client: &Client,
    statement: &Statement,
    values: impl IntoIterator<Item = V, IntoIter: ExactSizeIterator>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    client.query_raw(statement, values).await?.try_collect().await
}

/// Polls these in their order, so that they are sent in it, until all are ready. Gives what each gives, in that order.
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

/// Sessions that read.
pub struct Pool {
    server: Server,
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
}

impl Pool {
    /// Up to so many sessions, of which one is opened now.
    pub async fn open(server: &Server, sessions: u32) -> Result<Self, Failed> {
        let first = Session::open(server, Access::Read).await?;
        let permits = Semaphore::new(usize::try_from(sessions.max(1)).unwrap_or(1));
        Ok(Self { server: server.clone(), idle: Mutex::new(vec![first]), permits })
    }

    /// All rows of a query.
    pub async fn query(&self, sql: &str, values: &[Parameter]) -> Result<Vec<Row>, Failed> {
        let permit = tokio::time::timeout(POOL_WAIT, self.permits.acquire()).await;
        let _permit = permit.map_err(|_| Failed::no_answer())?.map_err(|_| Failed::closed())?;
        let session = tokio::time::timeout(POOL_WAIT, self.session()).await;
        let mut session = session.unwrap_or_else(|_| Err(Failed::no_answer()))?;
        // The server ends a statement that is too slow; one whose server has gone would be waited for until TCP gives up.
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

    /// Ends all sessions; one that is in use ends with its query.
    pub async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        futures::future::join_all(idle.into_iter().map(Session::close)).await;
    }
}
