//! The leader of the processes on one registry: the one whose writer's session has the registry's lock. The others see
//! in the database for how long that session has been idle, by the database's own clock, and can end it.

use std::time::Duration;

use tenantry_postgres::Server;
use tokio::sync::watch;

use super::address::Address;
use super::postgres::{Access, Session};
use super::query::Query;
use super::{OpenError, ReadError, Rejected, Store, StoreConfig};

/// The session that has the lock, and for how long it has asked for nothing; none while it does something.
const HOLDER: &str = "SELECT a.pid, CAST(1000 * EXTRACT(EPOCH FROM
        clock_timestamp() - GREATEST(a.state_change, a.query_start)) AS bigint)
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = 1952805492
      AND l.objid = CAST(hashtext(current_schema()) AS oid) AND a.datname = current_database() AND a.state <> 'active'";

/// The leader's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process on the database server.
    pid: i32,
    /// Time since its last statement.
    pub idle: Duration,
}

impl Store {
    /// Becomes the leader, if there is none. False: there is one.
    pub async fn lead(&self) -> Result<bool, Rejected> {
        self.database.writer().lead().await
    }

    /// Sends a heartbeat and returns the registry's epoch, or none if this process is no longer the leader.
    pub async fn heartbeat(&self) -> Result<Option<i64>, Rejected> {
        let before = self.epochs.latest();
        let confirmed = self.database.writer().heartbeat().await?;
        confirmed.map(|epoch| self.epochs.saw(epoch, before)).transpose()
    }

    /// Stops being the leader.
    pub async fn resign(&self) -> Result<(), Rejected> {
        self.database.writer().resign().await
    }

    /// Whether this process is the leader, as it changes.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.database.writer().leads()
    }

    /// The leader's session, if it is idle at the moment. None on SQLite, which has one process.
    pub async fn holder(&self) -> Result<Option<Holder>, ReadError> {
        let Address::Postgres(_) = self.database.address() else { return Ok(None) };
        let row: Option<(i32, i64)> = self.reads().one(Query::new(HOLDER)).await?;
        let idle = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
        Ok(row.map(|(pid, ms)| Holder { pid, idle: idle(ms) }))
    }

    /// Ends its session, and whatever it has not committed.
    pub async fn evict(&self, holder: Holder) -> Result<(), ReadError> {
        let end = Query::new("SELECT pg_terminate_backend(?)").value(i64::from(holder.pid));
        self.reads().column::<bool>(end).await.map(drop)
    }

    /// Fails unless sessions on the registry's server are what they seem: a pooler that gives transactions of one
    /// connection to several sessions would lose the lock unseen. Changes nothing.
    pub async fn check_sessions(config: &StoreConfig) -> Result<(), OpenError> {
        match config.url.parse().map_err(OpenError::Address)? {
            Address::Sqlite(_) => Ok(()),
            Address::Postgres(server) => check_sessions(&server).await,
        }
    }
}

async fn check_sessions(server: &Server) -> Result<(), OpenError> {
    const BACKEND: &str = "SELECT pg_backend_pid()";
    let mut first = Session::open(server, Access::Plain).await?;
    let mut second = Session::open(server, Access::Plain).await?;
    let before = first.ask(BACKEND).await?;
    // If this transaction takes the first connection's session, that one gets another.
    second.execute("BEGIN").await?;
    let other = second.ask(BACKEND).await?;
    let after = first.ask(BACKEND).await?;
    second.execute("ROLLBACK").await?;
    if before != after || before == other {
        let why = "the registry's connections share sessions, as behind a pooler in transaction mode: connect to the server directly";
        return Err(OpenError::Address(why.to_owned()));
    }
    first.close().await;
    second.close().await;
    Ok(())
}
