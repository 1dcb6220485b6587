//! Which of the processes on one registry runs: the one whose writer's session has the registry's lock. The others see
//! in the database how long that session has been silent, by the database's own clock, and can end it.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};
use tokio::sync::watch;

use super::connection::{Address, HOLDER};
use super::{OpenError, ReadError, Rejected, Store, StoreConfig};

/// The session of the process that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process on the database's server.
    pid: i32,
    /// How long it has been silent.
    pub silent: Duration,
}

impl Store {
    /// Becomes the one that runs, if there is none. False: there is one.
    pub async fn lead(&self) -> Result<bool, Rejected> {
        self.database.writer().lead().await
    }

    /// Shows that this process lives, and gives the registry's epoch. None: it runs no more.
    pub async fn beat(&self) -> Result<Option<i64>, Rejected> {
        let before = self.epochs.latest();
        let beat = self.database.writer().beat().await?;
        beat.map(|epoch| self.epochs.saw(epoch, before)).transpose()
    }

    /// Leaves it to another to run.
    pub async fn resign(&self) -> Result<(), Rejected> {
        self.database.writer().resign().await
    }

    /// Whether this process may run, as it changes.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.database.writer().leads()
    }

    /// Who runs, if it is silent at the moment. On SQLite nobody else does.
    pub async fn holder(&self) -> Result<Option<Holder>, ReadError> {
        let Address::Postgres(_) = self.database.address() else { return Ok(None) };
        let pool = self.reads().get_postgres_connection_pool();
        let row: Option<(i32, i64)> =
            sqlx::query_as(HOLDER).fetch_optional(pool).await.map_err(unreadable)?;
        let silent = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
        Ok(row.map(|(pid, ms)| Holder { pid, silent: silent(ms) }))
    }

    /// Ends its session, and whatever it has not committed.
    pub async fn evict(&self, holder: Holder) -> Result<(), ReadError> {
        let pool = self.reads().get_postgres_connection_pool();
        let ended = sqlx::query("SELECT pg_terminate_backend($1)").bind(holder.pid).execute(pool).await;
        ended.map(drop).map_err(unreadable)
    }

    /// Fails unless sessions on the registry's server are what they seem: a pooler that gives transactions of one
    /// connection to several sessions would lose the lock unseen. Changes nothing.
    pub async fn check_sessions(config: &StoreConfig) -> Result<(), OpenError> {
        match config.url.parse().map_err(OpenError::Address)? {
            Address::Sqlite(_) => Ok(()),
            Address::Postgres(options) => check_sessions(&options).await,
        }
    }
}

async fn check_sessions(options: &PgConnectOptions) -> Result<(), OpenError> {
    let (mut first, mut second) = (options.connect().await?, options.connect().await?);
    let before = session(&mut first).await?;
    // If this transaction takes the first connection's session, that one gets another.
    second.execute("BEGIN").await?;
    let other = session(&mut second).await?;
    let after = session(&mut first).await?;
    second.execute("ROLLBACK").await?;
    if before != after || before == other {
        let why = "the registry's connections share sessions: there is a pooler in transaction mode between; connect directly";
        return Err(OpenError::Address(why.to_owned()));
    }
    let (first, second) = (first.close().await, second.close().await);
    Ok(first.and(second)?)
}

/// Asked in the simple protocol: a pooler may not know prepared statements.
async fn session(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}

fn unreadable(error: sqlx::Error) -> ReadError {
    ReadError(error.to_string())
}
