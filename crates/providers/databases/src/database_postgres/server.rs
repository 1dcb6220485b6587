//! One PostgreSQL server: its administrator's connections, the turns that sessions take on it, and the schema `tenantry`
//! in its main database. Nothing is opened before it is needed.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgAdvisoryLock, PgAdvisoryLockGuard, PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Postgres, Row, Transaction};
use tenantry_model::{Failure, FailureClass};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::directory;
use super::failure::{connecting, failure, is_duplicate};
use super::name::Name;
use tenantry_provider::isolation::Who;

/// The oldest release that creates databases by WAL_LOG, and lets nobody create in `public`.
const OLDEST: i32 = 150_000;
/// How long a statement may take.
const STATEMENT: Duration = Duration::from_secs(120);
/// How long a session waits for another one's lock.
const LOCK: Duration = Duration::from_secs(10);
/// Which history the server is in: the number of its timeline, another one after a standby was promoted or a backup restored.
/// A standby has none of its own.
const TIMELINE: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN 0
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END";
/// How long somebody waits for a connection.
const CONNECTION: Duration = Duration::from_secs(10);
/// How long a session may ask for nothing before the server ends it, and its turn: its process hangs.
const SILENT: Duration = Duration::from_secs(30);
/// What a session asks that has nothing to ask.
const SIGN_OF_LIFE: &str = "SELECT";
/// How long a connection is kept that nobody uses. Less than [`SILENT`], or it would be ended under our hands.
const IDLE: Duration = Duration::from_secs(20);

/// A server.
pub struct Server {
    /// Where the configuration has it: the path of its `url` and `pooler`, with a dot at its end.
    path: String,
    options: PgConnectOptions,
    /// The way in that tenants' applications have: without our search path, which would stand before that of their roles.
    direct: PgConnectOptions,
    /// The way through the pooler, without what a pooler in transaction mode does not take.
    pooled: Option<PgConnectOptions>,
    main: PgPool,
    /// The timeline that the latest connection has found.
    timeline: Arc<AtomicI32>,
    facts: Mutex<Option<Facts>>,
}

/// What is known of a server once it has answered, for as long as it is on this timeline.
#[derive(Clone, Copy, Debug)]
struct Facts {
    superuser: bool,
    timeline: i32,
}

/// A connection whose session has a turn that no other session has. The turn ends when this is dropped.
pub type Turn = PgAdvisoryLockGuard<PoolConnection<Postgres>>;

impl Server {
    /// The server of this URL, and the address of the pooler before it if there is one; `path` is where the configuration
    /// has them. Does not connect.
    pub fn new(path: &str, url: &str, pooler: Option<&str>, connections: u32) -> Result<Self, Failure> {
        // The parser's own error may quote the password.
        let options: PgConnectOptions = url.parse().map_err(|_| {
            let like = "postgres://administrator:password@host/database";
            Failure::fatal("bad_url", format!("`{path}url` must be like {like}"))
        })?;
        let through = |address: &str| {
            let (host, port) = address.rsplit_once(':')?;
            let options = options.clone().host(host).port(port.parse().ok()?).extra_float_digits(None);
            Some(options.statement_cache_capacity(0).disable_statement_logging())
        };
        let bad = || {
            let like = "must be an address and a port, like db.example.com:6432";
            Failure::fatal("bad_url", format!("`{path}pooler` {like}"))
        };
        let pooled = pooler.map(|address| through(address).ok_or_else(bad)).transpose()?;
        let options = options
            .application_name("tenantry")
            .statement_cache_capacity(256)
            .options([
                ("statement_timeout", STATEMENT.as_millis().to_string()),
                ("idle_in_transaction_session_timeout", SILENT.as_millis().to_string()),
                ("idle_session_timeout", SILENT.as_millis().to_string()),
                ("lock_timeout", LOCK.as_millis().to_string()),
                ("standard_conforming_strings", "on".to_owned()),
            ])
            .disable_statement_logging();
        let direct = options.clone();
        // What others may create in a schema that everybody looks into is not what we mean.
        let options = options.options([("search_path", "pg_catalog")]);
        let timeline = Arc::default();
        let main = pool(connections, options.clone(), &timeline);
        Ok(Self { path: path.to_owned(), options, direct, pooled, main, timeline, facts: Mutex::default() })
    }

    /// A connection to the main database.
    pub async fn connection(&self) -> Result<PoolConnection<Postgres>, Failure> {
        self.facts().await?;
        let connection = self.main.acquire().await.map_err(connecting)?;
        // It may be the first one to a server that has taken over from the one that is known.
        self.facts().await?;
        Ok(connection)
    }

    /// Fails unless the server answers now. Who is about to rely on what was made there before finds out here if another
    /// server has taken over.
    pub async fn alive(&self) -> Result<(), Failure> {
        self.connection().await.map(drop)
    }

    /// The timeline that the server is on, as far as a connection has told by now.
    pub async fn timeline(&self) -> Result<i32, Failure> {
        Ok(self.facts().await?.timeline)
    }

    /// The same failure, with the name of the server that it is about.
    pub fn named(&self, mut failure: Failure) -> Failure {
        // What is wrong with what was asked for is wrong on every server.
        if failure.class != FailureClass::Invalid {
            let (host, port) = self.address();
            failure.message = format!("`{}url` ({host}:{port}): {}", self.path, failure.message);
        }
        failure
    }

    /// A transaction in the main database that begins with these statements.
    pub async fn begin(&self, prelude: String) -> Result<Transaction<'static, Postgres>, Failure> {
        self.facts().await?;
        begin(&self.main, prelude).await
    }

    /// Waits for the turn of this word: of all sessions in the main database, one has it.
    pub async fn turn(&self, word: &str) -> Result<Turn, Failure> {
        let connection = self.connection().await?;
        PgAdvisoryLock::new(format!("tenantry {word}")).acquire(connection).await.map_err(failure)
    }

    /// A connection of its own to another database on the server.
    pub async fn connect_to(&self, database: &Name) -> Result<PgConnection, Failure> {
        connect(&self.options.clone().database(database.as_str())).await
    }

    /// A session of another role, which logs in as its own application does: directly, or through the pooler.
    pub async fn log_in(
        &self,
        who: Who,
        role: &Name,
        password: &str,
        database: &str,
    ) -> Result<PgConnection, sqlx::Error> {
        let pooled = self.pooled.as_ref().filter(|_| who == Who::PooledLogin);
        let options = pooled.unwrap_or(&self.direct).clone().username(role.as_str()).password(password);
        options.database(database).connect().await
    }

    /// Whether a pooler is known through which tenants' applications connect.
    pub fn is_pooled(&self) -> bool {
        self.pooled.is_some()
    }

    /// A connection of its own to the main database, with the turn of this word until it is closed.
    pub async fn alone(&self, word: &str) -> Result<PgConnection, Failure> {
        self.facts().await?;
        let mut connection = connect(&self.options).await?;
        take_turn(&mut connection, word).await?;
        Ok(connection)
    }

    /// Connections to another database on the server, made when they are needed.
    pub fn pool_of(&self, database: &Name, connections: u32) -> PgPool {
        pool(connections, self.options.clone().database(database.as_str()), &self.timeline)
    }

    /// Whether the administrator may act as another role without being its member.
    pub async fn is_superuser(&self) -> Result<bool, Failure> {
        Ok(self.facts().await?.superuser)
    }

    /// Where clients find the server.
    pub fn address(&self) -> (&str, u16) {
        (self.options.get_host(), self.options.get_port())
    }

    /// Its main database among all servers', in one word.
    pub fn place(&self) -> String {
        let (host, port) = self.address();
        format!("{host}:{port}/{}", self.database())
    }

    /// The role that we are.
    pub fn administrator(&self) -> &str {
        self.options.get_username()
    }

    /// The main database.
    pub fn database(&self) -> &str {
        self.options.get_database().unwrap_or_else(|| self.options.get_username())
    }

    /// Shows that the server answers and lets us write.
    pub async fn probe(&self) -> Result<(), Failure> {
        let mut connection = self.connection().await?;
        self.check(&mut connection).await.map(drop)
    }

    async fn facts(&self) -> Result<Facts, Failure> {
        let mut facts = self.facts.lock().await;
        if let Some(known) = *facts
            && known.timeline == self.timeline.load(Ordering::Relaxed)
        {
            return Ok(known);
        }
        if facts.take().is_some() {
            tracing::warn!(
                server = self.place(),
                "another server has taken over, or a backup was restored: what it lacks is made when it is next needed"
            );
        }
        // Not from the pool, which goes on trying where nobody answers.
        let mut connection = connect(&self.options).await?;
        let found = self.check(&mut connection).await?;
        let mut turn =
            PgAdvisoryLock::new("tenantry directory").acquire(&mut connection).await.map_err(failure)?;
        directory::create(turn.as_mut()).await?;
        drop(turn);
        close(connection).await?;
        self.timeline.store(found.timeline, Ordering::Relaxed);
        *facts = Some(found);
        Ok(found)
    }

    /// Whether the server can serve, and the administrator do the work.
    async fn check(&self, connection: &mut PgConnection) -> Result<Facts, Failure> {
        let row = sqlx::query(
            "SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS standby,
                    rolsuper, rolsuper OR rolbypassrls AND rolcreaterole AND rolcreatedb AS able
             FROM pg_roles WHERE rolname = current_user",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(failure)?;
        let path = &self.path;
        if row.get::<i32, _>("version") < OLDEST {
            return Err(Failure::fatal("too_old", "PostgreSQL 15 or newer is needed"));
        }
        if row.get("standby") {
            let why = format!("the server of `{path}url` is a standby, which cannot write: name the primary");
            return Err(Failure::retryable("read_only", why));
        }
        if !row.get::<bool, _>("able") {
            let why = format!(
                "the role of `{path}url` needs CREATEROLE, CREATEDB and BYPASSRLS: ALTER ROLE … CREATEROLE CREATEDB BYPASSRLS"
            );
            return Err(Failure::fatal("not_allowed", why));
        }
        let timeline = timeline(connection).await.map_err(failure)?;
        Ok(Facts { superuser: row.get("rolsuper"), timeline })
    }
}

/// A connection of its own. A server that lets nobody in and sends nobody away holds up those who wait for it, and not for
/// ever.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Failure> {
    match timeout(CONNECTION, options.connect()).await {
        Ok(connected) => connected.map_err(connecting),
        Err(_) => Err(connecting(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
    }
}

async fn timeline(connection: &mut PgConnection) -> sqlx::Result<i32> {
    sqlx::query_scalar(TIMELINE).persistent(false).fetch_one(connection).await
}

/// Lets the statements of a transaction run for as long as they take: no tenant is too big to be deleted.
pub async fn take_time(transaction: &mut PgConnection) -> Result<(), Failure> {
    run(transaction, "SET LOCAL statement_timeout = 0".to_owned()).await
}

/// Does something elsewhere in a turn whose session has nothing to do meanwhile: it shows that it lives, or the server would
/// end it as one that hangs.
pub async fn meanwhile<T>(
    turn: &mut PgConnection,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    keep(turn, SILENT / 3, work).await
}

async fn keep<T>(
    turn: &mut PgConnection,
    often: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = pin!(work);
    loop {
        match timeout(often, &mut work).await {
            Ok(done) => return done,
            Err(_) => run(turn, SIGN_OF_LIFE.to_owned()).await?,
        }
    }
}

/// A transaction that begins with these statements. If they fail, the connection is as it was.
pub async fn begin(pool: &PgPool, prelude: String) -> Result<Transaction<'static, Postgres>, Failure> {
    let mut transaction = pool.begin().await.map_err(connecting)?;
    run(&mut transaction, prelude).await?;
    Ok(transaction)
}

/// Waits for the turn of this word, and has it until the connection ends.
pub async fn take_turn(connection: &mut PgConnection, word: &str) -> Result<(), Failure> {
    let guard = PgAdvisoryLock::new(format!("tenantry {word}")).acquire(connection).await;
    guard.map_err(failure)?.leak();
    Ok(())
}

/// Runs statements in one round trip.
pub async fn run(connection: &mut PgConnection, sql: String) -> Result<(), Failure> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop).map_err(failure)
}

/// Makes things by statements in one round trip. If one of them has just been made by somebody else, the next attempt
/// sees whose it is.
pub async fn make(connection: &mut PgConnection, sql: String) -> Result<(), Failure> {
    let made = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    made.map(drop).map_err(|error| match is_duplicate(&error) {
        true => Failure::retryable("just_made", "something of this name has just been made"),
        false => failure(error),
    })
}

/// Ends a connection in order. The server may take a moment to have done with it.
pub async fn close(connection: PgConnection) -> Result<(), Failure> {
    connection.close().await.map_err(failure)
}

/// Each connection tells which timeline the server is on: whoever takes a server's place ends or refuses those to the other.
fn pool(connections: u32, options: PgConnectOptions, seen: &Arc<AtomicI32>) -> PgPool {
    let seen = seen.clone();
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECTION)
        .idle_timeout(IDLE)
        .after_connect(move |connection, _| {
            let seen = seen.clone();
            Box::pin(async move {
                seen.store(timeline(connection).await?, Ordering::Relaxed);
                Ok(())
            })
        })
        .connect_lazy_with(options)
}

#[cfg(test)]
mod tests {
    use tenantry_testkit::TestDatabase;

    use super::*;

    #[tokio::test]
    async fn a_turn_shows_that_it_lives_while_the_work_is_elsewhere() {
        let Some(database) = TestDatabase::postgres().await else { return };
        let options: PgConnectOptions = database.url().parse().unwrap();
        let [mut turn, mut inside] = [options.connect().await.unwrap(), options.connect().await.unwrap()];
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut turn).await.unwrap();
        let work = async {
            for _ in 0..10_000 {
                let asked = sqlx::query_scalar("SELECT query FROM pg_stat_activity WHERE pid = $1").bind(pid);
                let asked: String = asked.fetch_one(&mut inside).await.unwrap();
                if asked == SIGN_OF_LIFE {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        assert!(keep(&mut turn, Duration::from_millis(1), work).await.unwrap(), "it is silent");
    }
}
