//! Leader election among the processes on one registry. The leader is the process whose writer's session holds the
//! registry's advisory lock. The other processes read from PostgreSQL's system views how long that session has been
//! idle, by the database's clock, and can terminate it.

use std::time::Duration;

use tenantry_postgres::Server;
use tokio::sync::watch;

use super::address::Address;
use super::postgres::{Access, Session};
use super::query::Query;
use super::{OpenError, ReadError, Rejected, Store, StoreConfig};

/// Selects the session that holds the lock and its idle time in milliseconds; no row while it runs a statement.
const HOLDER: &str = "SELECT a.pid, CAST(1000 * EXTRACT(EPOCH FROM
        clock_timestamp() - GREATEST(a.state_change, a.query_start)) AS bigint)
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = 1952805492
      AND l.objid = CAST(hashtext(current_schema()) AS oid) AND a.datname = current_database() AND a.state <> 'active'";

/// The leader's session, which holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id of the session on the database server.
    pid: i32,
    /// Time since the session's last statement.
    pub idle: Duration,
}

impl Store {
    /// Makes this process the leader. Returns false if another process is the leader.
    pub async fn lead(&self) -> Result<bool, Rejected> {
        self.database.writer().lead().await
    }

    /// Sends a heartbeat and returns the registry's epoch, or none if this process is no longer the leader.
    pub async fn heartbeat(&self) -> Result<Option<i64>, Rejected> {
        let before = self.epochs.latest();
        let confirmed = self.database.writer().heartbeat().await?;
        confirmed.map(|epoch| self.epochs.saw(epoch, before)).transpose()
    }

    /// Gives up the leadership by closing the writer's session; the next write opens another session.
    pub async fn resign(&self) -> Result<(), Rejected> {
        self.database.writer().resign().await
    }

    /// Watches whether this process is the leader.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.database.writer().leads()
    }

    /// Returns the leader's session if it is idle at the moment. Always none on SQLite, which has one process.
    pub async fn holder(&self) -> Result<Option<Holder>, ReadError> {
        let Address::Postgres(_) = self.database.address() else { return Ok(None) };
        let row: Option<(i32, i64)> = self.reads().one(Query::new(HOLDER)).await?;
        let idle = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
        Ok(row.map(|(pid, ms)| Holder { pid, idle: idle(ms) }))
    }

    /// Terminates the leader's session; the database rolls back its open transaction.
    pub async fn evict(&self, holder: Holder) -> Result<(), ReadError> {
        let end = Query::new("SELECT pg_terminate_backend(?)").value(i64::from(holder.pid));
        self.reads().column::<bool>(end).await.map(drop)
    }

    /// Returns an error if the registry's URL leads to a pooler in transaction mode, which assigns the transactions of
    /// one connection to several sessions: the leader's lock would get lost without notice. Changes nothing.
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
    // A pooler gives the first connection's session to this transaction, and then another one to the first connection.
    second.execute("BEGIN").await?;
    let other = second.ask(BACKEND).await?;
    let after = first.ask(BACKEND).await?;
    second.execute("ROLLBACK").await?;
    if before != after || before == other {
        let why = "connections to the registry's database share sessions, as behind a pooler in transaction mode: \
                   set `store.url` to the server itself";
        return Err(OpenError::Address(why.to_owned()));
    }
    first.close().await;
    second.close().await;
    Ok(())
}
