//! Connections: how each database is opened, and the writer's one connection to it.
//!
//! Errors are sorted here, once: is the connection gone, can the database not write now, or does it refuse the rows?

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{DatabaseConnection, SqlxPostgresConnector, SqlxSqliteConnector};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Executor as _};

use super::sql::Dialect;

/// How long a statement may wait for a lock, or run, before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a caller waits for a connection of the read pool.
const POOL_WAIT: Duration = Duration::from_secs(10);

/// Where a database is.
#[derive(Clone, Debug)]
pub enum Address {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<PgConnectOptions>),
}

impl FromStr for Address {
    type Err = String;
    fn from_str(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("a sqlite URL needs a path, such as sqlite:///var/lib/tenantry/registry.db".to_owned())
            } else {
                Ok(Self::Sqlite(path.into()))
            };
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // The parser's own error may quote the password.
            let options =
                url.parse::<PgConnectOptions>().map_err(|_| "the postgres URL is malformed".to_owned())?;
            return Ok(Self::Postgres(Box::new(options)));
        }
        Err("a database URL begins with sqlite: or postgres:".to_owned())
    }
}

impl Address {
    /// Which database it is.
    pub const fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// A connection for migrations, closed afterwards.
    pub async fn open_for_migration(&self) -> Result<DatabaseConnection, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(path) => {
                let pool = SqlitePoolOptions::new().max_connections(1).connect_with(sqlite(path)).await?;
                SqlxSqliteConnector::from_sqlx_sqlite_pool(pool)
            }
            Self::Postgres(options) => {
                let pool = PgPoolOptions::new().max_connections(1).connect_with(postgres(options)).await?;
                SqlxPostgresConnector::from_sqlx_postgres_pool(pool)
            }
        })
    }

    /// The pool that all reads share. It cannot write.
    pub async fn open_for_reading(&self, connections: u32) -> Result<DatabaseConnection, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(path) => {
                let options = sqlite(path).read_only(true).create_if_missing(false);
                let pool = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(POOL_WAIT);
                SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.connect_with(options).await?)
            }
            Self::Postgres(options) => {
                let options = postgres(options).options([("default_transaction_read_only", "on")]);
                let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(POOL_WAIT);
                SqlxPostgresConnector::from_sqlx_postgres_pool(pool.connect_with(options).await?)
            }
        })
    }
}

fn sqlite(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(PATIENCE)
        .statement_cache_capacity(256)
        .pragma("secure_delete", "on")
        // Fewer, larger checkpoints: each one writes the same hot pages again.
        .pragma("wal_autocheckpoint", "4000")
        .pragma("cache_size", "-65536")
        .disable_statement_logging()
}

fn postgres(options: &PgConnectOptions) -> PgConnectOptions {
    options
        .clone()
        .application_name("tenantry")
        .statement_cache_capacity(256)
        .options([("statement_timeout", PATIENCE.as_millis().to_string())])
        .disable_statement_logging()
}

/// Why a statement failed.
#[derive(Debug)]
pub struct Failed {
    /// What kind of failure it is.
    pub cause: Cause,
    /// The driver's or the database's text.
    pub message: String,
}

/// The kinds of failure that need different answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The connection must not be used again.
    Lost,
    /// The database cannot do it now (disk full, locked, shutting down).
    Unavailable,
    /// A unique value is taken.
    Conflict,
    /// The database refuses the statement or its values.
    Refused,
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        let cause = match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => Cause::Conflict,
            sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
                Some(database) => postgres_cause(database.code()),
                None => sqlite_cause(database.code().as_deref()),
            },
            sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                Cause::Refused
            }
            _ => Cause::Lost,
        };
        Self { cause, message: error.to_string() }
    }
}

/// By SQLSTATE class (PostgreSQL's appendix A).
fn postgres_cause(code: &str) -> Cause {
    match code.get(..2).unwrap_or_default() {
        // Connection; operator intervention (shutdown, crash; but a cancelled statement only failed itself).
        "08" => Cause::Lost,
        "57" if code != "57014" => Cause::Lost,
        // Serialization and deadlock; resources (disk full …); timeout; limits; locks; system errors; a standby.
        "40" | "53" | "54" | "55" | "57" | "58" | "25" => Cause::Unavailable,
        _ => Cause::Refused,
    }
}

/// By primary result code.
fn sqlite_cause(code: Option<&str>) -> Cause {
    const BUSY: i32 = 5;
    const LOCKED: i32 = 6;
    const NOMEM: i32 = 7;
    const READONLY: i32 = 8;
    const FULL: i32 = 13;
    const TOOBIG: i32 = 18;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    const ERROR: i32 = 1;
    match code.and_then(|c| c.parse::<i32>().ok()).map(|c| c & 0xff) {
        Some(BUSY | LOCKED | NOMEM | READONLY | FULL) => Cause::Unavailable,
        Some(TOOBIG | CONSTRAINT | MISMATCH | ERROR) => Cause::Refused,
        // I/O errors and everything stranger: a fresh connection reads the file's true state.
        _ => Cause::Lost,
    }
}

/// The connection that writes.
pub enum Connection {
    /// To SQLite.
    Sqlite(Box<SqliteConnection>),
    /// To PostgreSQL.
    Postgres(Box<PgConnection>),
}

impl Connection {
    /// Opens it.
    pub async fn open(address: &Address) -> Result<Self, Failed> {
        Ok(match address {
            Address::Sqlite(path) => Self::Sqlite(Box::new(sqlite(path).connect().await?)),
            Address::Postgres(options) => Self::Postgres(Box::new(postgres(options).connect().await?)),
        })
    }

    /// Begins a transaction that may write.
    pub async fn begin(&mut self) -> Result<(), Failed> {
        match self {
            Self::Sqlite(c) => c.execute("BEGIN IMMEDIATE").await.map(drop),
            Self::Postgres(c) => c.execute("BEGIN").await.map(drop),
        }
        .map_err(Failed::from)
    }

    /// Makes it durable.
    pub async fn commit(&mut self) -> Result<(), Failed> {
        self.execute("COMMIT").await
    }

    /// Forgets it.
    pub async fn rollback(&mut self) -> Result<(), Failed> {
        self.execute("ROLLBACK").await
    }

    /// Runs a statement without parameters.
    pub async fn execute(&mut self, sql: &'static str) -> Result<(), Failed> {
        match self {
            Self::Sqlite(c) => c.execute(sql).await.map(drop),
            Self::Postgres(c) => c.execute(sql).await.map(drop),
        }
        .map_err(Failed::from)
    }

    /// Runs a statement on these rows.
    pub async fn run(&mut self, sql: Arc<str>, rows: String) -> Result<(), Failed> {
        match self {
            Self::Sqlite(c) => sqlx::query(AssertSqlSafe(sql)).bind(rows).execute(&mut **c).await.map(drop),
            Self::Postgres(c) => sqlx::query(AssertSqlSafe(sql)).bind(rows).execute(&mut **c).await.map(drop),
        }
        .map_err(Failed::from)
    }

    /// Runs a statement on these rows and returns the keys that it returns.
    pub async fn keys(&mut self, sql: Arc<str>, rows: String) -> Result<Vec<String>, Failed> {
        let sql = AssertSqlSafe(sql);
        match self {
            Self::Sqlite(c) => sqlx::query_scalar(sql).bind(rows).fetch_all(&mut **c).await,
            Self::Postgres(c) => sqlx::query_scalar(sql).bind(rows).fetch_all(&mut **c).await,
        }
        .map_err(Failed::from)
    }

    /// The registry's epoch, held against change until the transaction ends.
    pub async fn epoch(&mut self) -> Result<i64, Failed> {
        const SQLITE: &str = "SELECT epoch FROM runner WHERE id = 1";
        const POSTGRES: &str = "SELECT epoch FROM runner WHERE id = 1 FOR SHARE";
        match self {
            Self::Sqlite(c) => sqlx::query_scalar(SQLITE).fetch_one(&mut **c).await,
            Self::Postgres(c) => sqlx::query_scalar(POSTGRES).fetch_one(&mut **c).await,
        }
        .map_err(Failed::from)
    }

    /// Closes it in order, so that SQLite can fold its log into the file.
    pub async fn close(self) {
        let closed = match self {
            Self::Sqlite(c) => c.close().await,
            Self::Postgres(c) => c.close().await,
        };
        if let Err(error) = closed {
            tracing::debug!(%error, "the writer's connection did not close in order");
        }
    }
}
