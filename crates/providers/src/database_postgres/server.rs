//! One PostgreSQL server: its administrator's connections, the turns that sessions take on it, and the schema `tenantry`
//! in its main database. Nothing is opened before it is needed.

use std::pin::pin;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgAdvisoryLock, PgAdvisoryLockGuard, PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Postgres, Row, Transaction};
use tenantry_model::Failure;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::directory;
use super::failure::{connecting, failure, is_duplicate};
use super::name::Name;
use crate::isolation::Who;

/// The oldest release that creates databases by WAL_LOG, and lets nobody create in `public`.
const OLDEST: i32 = 150_000;
/// How long a statement may take.
const STATEMENT: Duration = Duration::from_secs(120);
/// How long a session waits for another one's lock.
const LOCK: Duration = Duration::from_secs(10);
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
    options: PgConnectOptions,
    /// The way through the pooler, without what a pooler in transaction mode does not take.
    pooled: Option<PgConnectOptions>,
    main: PgPool,
    facts: OnceCell<Facts>,
}

/// What is known of a server once it has answered.
#[derive(Clone, Copy, Debug)]
struct Facts {
    superuser: bool,
}

/// A connection whose session has a turn that no other session has. The turn ends when this is dropped.
pub type Turn = PgAdvisoryLockGuard<PoolConnection<Postgres>>;

impl Server {
    /// The server of this URL, and the address of the pooler before it if there is one. Does not connect.
    pub fn new(url: &str, pooler: Option<&str>, connections: u32) -> Result<Self, Failure> {
        // The parser's own error may quote the password.
        let options: PgConnectOptions = url.parse().map_err(|_| {
            Failure::fatal("bad_url", "`url` must be like postgres://administrator:password@host/database")
        })?;
        let through = |address: &str| {
            let (host, port) = address.rsplit_once(':')?;
            let options = options.clone().host(host).port(port.parse().ok()?).extra_float_digits(None);
            Some(options.statement_cache_capacity(0).disable_statement_logging())
        };
        let bad =
            || Failure::fatal("bad_url", "`pooler` must be an address and a port, like db.example.com:6432");
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
        let main = pool(connections, options.clone());
        Ok(Self { options, pooled, main, facts: OnceCell::new() })
    }

    /// A connection to the main database.
    pub async fn connection(&self) -> Result<PoolConnection<Postgres>, Failure> {
        self.facts().await?;
        self.main.acquire().await.map_err(connecting)
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
        self.options.clone().database(database.as_str()).connect().await.map_err(connecting)
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
        let options = pooled.unwrap_or(&self.options).clone().username(role.as_str()).password(password);
        options.database(database).connect().await
    }

    /// Whether a pooler is known through which tenants' applications connect.
    pub fn is_pooled(&self) -> bool {
        self.pooled.is_some()
    }

    /// A connection of its own to the main database, with the turn of this word until it is closed.
    pub async fn alone(&self, word: &str) -> Result<PgConnection, Failure> {
        self.facts().await?;
        let connection = self.options.connect().await.map_err(connecting)?;
        let guard = PgAdvisoryLock::new(format!("tenantry {word}")).acquire(connection).await;
        Ok(guard.map_err(failure)?.leak())
    }

    /// Connections to another database on the server, made when they are needed.
    pub fn pool_of(&self, database: &Name, connections: u32) -> PgPool {
        pool(connections, self.options.clone().database(database.as_str()))
    }

    /// Whether the administrator may act as another role without being its member.
    pub async fn is_superuser(&self) -> Result<bool, Failure> {
        Ok(self.facts().await?.superuser)
    }

    /// Where clients find the server.
    pub fn address(&self) -> (&str, u16) {
        (self.options.get_host(), self.options.get_port())
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
        check(&mut connection).await.map(drop)
    }

    async fn facts(&self) -> Result<Facts, Failure> {
        let facts = self.facts.get_or_try_init(|| async {
            // Not from the pool, which goes on trying where nobody answers.
            let mut connection = self.options.connect().await.map_err(connecting)?;
            let facts = check(&mut connection).await?;
            let mut turn =
                PgAdvisoryLock::new("tenantry directory").acquire(&mut connection).await.map_err(failure)?;
            directory::create(turn.as_mut()).await?;
            drop(turn);
            close(connection).await?;
            Ok(facts)
        });
        facts.await.copied()
    }
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

/// Ends a connection in order, so that the server has done with it when this returns.
pub async fn close(connection: PgConnection) -> Result<(), Failure> {
    connection.close().await.map_err(failure)
}

fn pool(connections: u32, options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECTION)
        .idle_timeout(IDLE)
        .connect_lazy_with(options)
}

/// Whether the server can serve, and the administrator do the work.
async fn check(connection: &mut PgConnection) -> Result<Facts, Failure> {
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS standby,
                rolsuper, rolsuper OR rolbypassrls AND rolcreaterole AND rolcreatedb AS able
         FROM pg_roles WHERE rolname = current_user",
    )
    .fetch_one(connection)
    .await
    .map_err(failure)?;
    if row.get::<i32, _>("version") < OLDEST {
        return Err(Failure::fatal("too_old", "PostgreSQL 15 or newer is needed"));
    }
    if row.get("standby") {
        return Err(Failure::retryable("read_only", "the server of `url` is a standby: name the primary"));
    }
    if !row.get::<bool, _>("able") {
        return Err(Failure::fatal(
            "not_allowed",
            "the role of `url` needs CREATEROLE, CREATEDB and BYPASSRLS: ALTER ROLE … CREATEROLE CREATEDB BYPASSRLS",
        ));
    }
    Ok(Facts { superuser: row.get("rolsuper") })
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
