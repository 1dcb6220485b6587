//! Connections: how each database is opened, and the writer's one connection to it.
//!
//! Errors are sorted here, once: is the connection gone, can the database not write now, or does it refuse the rows?

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{DatabaseConnection, SqlxPostgresConnector, SqlxSqliteConnector};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Arguments as _, AssertSqlSafe, ConnectOptions, Connection as _, Executor as _};

use tenantry_model::Datum;

use super::sql::{Dialect, Shape};
use super::table::{Kind, Table};
use super::writer::Statements;

/// How long a statement may wait for a lock, or run, before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a transaction may ask for nothing before it is ended.
const STOPPED: Duration = Duration::from_secs(5);
/// How long SQLite's log waits for those who read in it, before it is left for another attempt.
const READING: Duration = Duration::from_secs(5);
/// How long after its last use a connection is taken to be there without asking, which costs as much as a look-up.
const BELIEVED: Duration = Duration::from_millis(100);
/// How long a caller waits for a connection of the read pool.
const POOL_WAIT: Duration = Duration::from_secs(10);

/// The lock of whoever runs, one for each registry of a database: its first number is any that nothing else takes.
const LOCK: &str = "SELECT pg_try_advisory_lock(1952805492, hashtext(current_schema()))";

/// Which history the database's server is in: its timeline, another one after a standby was promoted or a backup restored.
/// None on a standby.
const TIMELINE: &str = "SELECT CASE WHEN NOT pg_is_in_recovery()
    THEN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END";

/// What is answered for is not lost in a crash, whatever the server does for others. A setting that waits for more is left.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'";

/// The session that has [`LOCK`], and for how long it has asked for nothing; none while it does something.
pub const HOLDER: &str = "SELECT a.pid, CAST(1000 * EXTRACT(EPOCH FROM
        clock_timestamp() - GREATEST(a.state_change, a.query_start)) AS bigint)
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = 1952805492
      AND l.objid = CAST(hashtext(current_schema()) AS oid) AND a.datname = current_database() AND a.state <> 'active'";

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
    /// Where it is, without its password.
    pub fn place(&self) -> String {
        match self {
            Self::Sqlite(path) => path.display().to_string(),
            Self::Postgres(options) => {
                let database = options.get_database().unwrap_or_else(|| options.get_username());
                format!("{}:{}/{database}", options.get_host(), options.get_port())
            }
        }
    }

    /// Which database it is.
    pub const fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Whether anybody else has this file open. False for a server's database, which has a lock for that.
    pub async fn is_open_elsewhere(&self) -> Result<bool, Failed> {
        let Self::Sqlite(path) = self else { return Ok(false) };
        let alone = sqlite(path).locking_mode(SqliteLockingMode::Exclusive).busy_timeout(Duration::ZERO);
        let opened = async {
            let mut connection = alone.connect().await?;
            connection.execute("SELECT 1 FROM sqlite_schema").await?;
            connection.close().await
        };
        match opened.await.map_err(Failed::from) {
            Err(Failed { cause: Cause::Unavailable, .. }) => Ok(true),
            other => other.map(|()| false),
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
                let pool = pool.test_before_acquire(false).before_acquire(|connection, used| {
                    Box::pin(async move {
                        if used.idle_for >= BELIEVED {
                            connection.ping().await?;
                        }
                        Ok(true)
                    })
                });
                SqlxPostgresConnector::from_sqlx_postgres_pool(pool.connect_with(options).await?)
            }
        })
    }
}

/// The timeline of a server. Fails on a standby, which cannot write.
pub async fn timeline(connection: &mut PgConnection) -> Result<i32, Failed> {
    let timeline: Option<i32> = sqlx::query_scalar(TIMELINE).fetch_one(connection).await?;
    let standby = "the server is a standby, which cannot write: name the primary";
    timeline.ok_or_else(|| Failed { cause: Cause::Unavailable, message: standby.to_owned() })
}

/// Connections that tell other processes something, and hear what they say.
pub async fn open_for_hints(options: &PgConnectOptions) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new().max_connections(2).acquire_timeout(POOL_WAIT).connect_with(postgres(options)).await
}

fn sqlite(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(PATIENCE)
        .statement_cache_capacity(1024)
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
        // A process that was stopped in a transaction must not hold its locks against the others.
        .options([("idle_in_transaction_session_timeout", STOPPED.as_millis().to_string())])
        // Statements are planned once, perhaps while the tables are still empty and reading them whole is cheapest. Nothing here
        // wants that; and what plans are then thought to cost must not have them compiled.
        .options([("enable_seqscan", "off"), ("jit", "off")])
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
        // Ended because it had asked for nothing in the middle of a transaction.
        "25" if code == "25P03" => Cause::Lost,
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
    /// Extended: a trigger refuses. The only ones are those of a registry that has moved.
    const TRIGGER: i32 = 1811;
    let code = code.and_then(|code| code.parse::<i32>().ok());
    if code == Some(TRIGGER) {
        return Cause::Unavailable;
    }
    match code.map(|code| code & 0xff) {
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
            Address::Postgres(options) => {
                let mut connection = postgres(options).connect().await?;
                connection.execute(DURABLE).await?;
                Self::Postgres(Box::new(connection))
            }
        })
    }

    /// The timeline of the server; a SQLite file has one.
    pub async fn timeline(&mut self) -> Result<i32, Failed> {
        match self {
            Self::Sqlite(_) => Ok(0),
            Self::Postgres(c) => timeline(c).await,
        }
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

    /// The same for one that is put together from names of the code.
    pub async fn execute_owned(&mut self, sql: String) -> Result<(), Failed> {
        match self {
            Self::Sqlite(c) => c.execute(AssertSqlSafe(sql)).await.map(drop),
            Self::Postgres(c) => c.execute(AssertSqlSafe(sql)).await.map(drop),
        }
        .map_err(Failed::from)
    }

    /// Runs the statement of a shape on these rows, and returns the keys that it returns.
    pub(super) async fn run(
        &mut self,
        statements: &mut Statements,
        shape: Shape,
        rows: &[&[Datum]],
    ) -> Result<Vec<String>, Failed> {
        match self {
            Self::Sqlite(c) => {
                let mut keys = Vec::new();
                let mut rest = rows;
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(sqlite_rows(rest.len(), rest[0].len()));
                    let text = AssertSqlSafe(statements.text(shape, now.len()));
                    let arguments = sqlite_arguments(now)?;
                    if shape.returns_keys() {
                        keys.extend(sqlx::query_scalar_with(text, arguments).fetch_all(&mut **c).await?);
                    } else {
                        sqlx::query_with(text, arguments).execute(&mut **c).await?;
                    }
                    rest = later;
                }
                Ok(keys)
            }
            Self::Postgres(c) => {
                let text = AssertSqlSafe(statements.text(shape, 0));
                let arguments = postgres_arguments(statements.schema.at(shape.table), shape, rows)?;
                if shape.returns_keys() {
                    Ok(sqlx::query_scalar_with(text, arguments).fetch_all(&mut **c).await?)
                } else {
                    sqlx::query_with(text, arguments).execute(&mut **c).await?;
                    Ok(Vec::new())
                }
            }
        }
    }

    /// Takes the registry's lock for this session, if no other session has it. A SQLite file has one process anyway.
    pub async fn lock(&mut self) -> Result<bool, Failed> {
        match self {
            Self::Sqlite(_) => Ok(true),
            Self::Postgres(c) => Ok(sqlx::query_scalar(LOCK).fetch_one(&mut **c).await?),
        }
    }

    /// Folds SQLite's log into its file and empties it.
    pub async fn fold_log(&mut self) -> Result<(), Failed> {
        let Self::Sqlite(c) = self else { return Ok(()) };
        c.execute(AssertSqlSafe(format!("PRAGMA busy_timeout = {}", READING.as_millis()))).await?;
        let (busy, _, _): (bool, i64, i64) =
            sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut **c).await?;
        if !busy {
            return Ok(());
        }
        let message = "the log still holds old rows, because something reads the file all the time: end its transaction";
        Err(Failed { cause: Cause::Unavailable, message: message.to_owned() })
    }

    /// The registry's epoch as it is.
    pub async fn present_epoch(&mut self) -> Result<i64, Failed> {
        const EPOCH: &str = "SELECT epoch FROM runner WHERE id = 1";
        match self {
            Self::Sqlite(c) => sqlx::query_scalar(EPOCH).fetch_one(&mut **c).await,
            Self::Postgres(c) => sqlx::query_scalar(EPOCH).fetch_one(&mut **c).await,
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

/// How many of `rows` rows with `columns` values each go into one SQLite statement: a power of two, so that there are
/// few texts, and within SQLite's number of parameters.
fn sqlite_rows(rows: usize, columns: usize) -> usize {
    const MOST_ROWS: usize = 64;
    const MOST_PARAMETERS: usize = 32_766;
    let most = rows.min(MOST_ROWS).min(MOST_PARAMETERS / columns.max(1)).max(1);
    1 << most.ilog2()
}

fn sqlite_arguments(rows: &[&[Datum]]) -> Result<SqliteArguments, Failed> {
    let mut arguments = SqliteArguments::default();
    for cell in rows.iter().copied().flatten() {
        let added = match cell {
            Datum::Null => arguments.add(None::<i64>),
            Datum::Int(value) => arguments.add(*value),
            Datum::Bool(value) => arguments.add(*value),
            Datum::Text(text) | Datum::Json(text) => arguments.add(Arc::clone(text)),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// One array per column.
fn postgres_arguments(table: &Table, shape: Shape, rows: &[&[Datum]]) -> Result<PgArguments, Failed> {
    let mut arguments = PgArguments::default();
    for (n, i) in shape.columns().enumerate() {
        let column = rows.iter().map(|row| &row[n]);
        let added = match table.columns[i].kind {
            Kind::Int | Kind::BigInt => arguments.add(column.map(Datum::int).collect::<Vec<Option<i64>>>()),
            Kind::Bool => arguments.add(column.map(Datum::bool).collect::<Vec<Option<bool>>>()),
            Kind::Text | Kind::Json | Kind::Time => {
                arguments.add(column.map(Datum::text).collect::<Vec<Option<&str>>>())
            }
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use tenantry_testkit::TestDatabase;
    use tenantry_testkit::database::execute;

    use super::*;

    #[tokio::test]
    async fn a_commit_is_never_less_than_durable() {
        let Some(database) = TestDatabase::postgres().await else { return };
        let options: PgConnectOptions = database.url().parse().unwrap();
        for (set, wanted) in [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")] {
            let name = options.get_database().unwrap();
            let sql = format!("ALTER DATABASE \"{name}\" SET synchronous_commit = {set}");
            execute(database.url(), sql).await.unwrap();
            let opened = Connection::open(&Address::Postgres(Box::new(options.clone()))).await.unwrap();
            let Connection::Postgres(mut connection) = opened else { panic!("another database") };
            let is: String =
                sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&mut *connection).await.unwrap();
            assert_eq!(is, wanted);
        }
    }
}
