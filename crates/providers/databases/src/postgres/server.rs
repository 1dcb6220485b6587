//! One PostgreSQL server: the administrator's connections, advisory locks between processes, and the schema
//! `tenantry` in its main database. Connects when first used.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tenantry_model::{Failure, FailureClass, Isolation};
use tenantry_postgres::{AdvisoryLock, Error, Limits, Pool, Pooled, Server as Address, Session, Transaction};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::blockers::unblocked;
use super::config::Config;
use super::failure::{connecting, failure, is_duplicate};
use super::name::Name;
use super::role::Memberships;
use super::{administrator, directory, extensions};
use tenantry_provider::isolation::Who;

/// Oldest supported release: it copies databases by WAL_LOG and lets only the owner create objects in
/// `public`.
const OLDEST: i32 = 150_000;
/// First release whose memberships in roles have options.
const MEMBERSHIP_OPTIONS: i32 = 160_000;
/// Time limit of a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(120);
/// Time that a session waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Reads the number of the server's timeline, which changes when a standby is promoted or a backup is
/// restored. 0 on a standby.
const TIMELINE: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN 0
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END";
/// How the server writes times and numbers, whatever its own settings are.
const VALUES: &str = "-c TimeZone=UTC -c DateStyle=ISO,MDY -c extra_float_digits=2";
/// Time that a caller waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for a login of a tenant's role: longer than a pooler makes a client wait for its server (PgBouncer's
/// `query_wait_timeout`, 120 s), so that a pooler that waits after a rejected login is not taken for one that denies it.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(150);
/// Time without a query after which the server ends a session and releases its locks: its process hangs.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// Query that keeps an idle session alive.
const KEEPALIVE: &str = "SELECT";
/// Time for which an unused connection is kept. Less than [`SILENCE_LIMIT`], or the server would end it first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// One server.
pub struct Server {
    /// Path of its section in the configuration, with a final dot.
    path: String,
    address: Address,
    /// Of tenants' direct logins: without the administrator's search path, which would override that of the
    /// tenant's role.
    direct: Address,
    /// Of logins through the pooler, without settings that transaction mode rejects.
    pooled: Option<Address>,
    main: Pool,
    /// Timeline that the latest connection found.
    timeline: Arc<AtomicI32>,
    facts: Mutex<Option<Facts>>,
}

/// Facts read from a server, valid for one timeline.
#[derive(Clone, Copy, Debug)]
struct Facts {
    memberships: Memberships,
    timeline: i32,
}

/// A connection whose session holds an advisory lock. Dropping it releases the lock.
pub type ServerLock = AdvisoryLock<Pooled>;

impl Server {
    /// The server at this URL with an optional pooler; `path` is its section in the configuration. Does not
    /// connect.
    pub fn new(path: &str, url: &str, pooler: Option<&str>, connections: u32) -> Result<Self, Failure> {
        let mut direct: Address = url.parse().map_err(|why: String| {
            let like = "postgres://administrator:password@host/database";
            Failure::fatal("bad_url", format!("`{path}url` must be like {like}: {why}"))
        })?;
        let through = |address: &str| {
            let (host, port) = address.rsplit_once(':')?;
            Some(direct.at(host, port.parse().ok()?))
        };
        let bad = || {
            let like = "must be an address and a port, like db.example.com:6432";
            Failure::fatal("bad_url", format!("`{path}pooler` {like}"))
        };
        let pooled = pooler.map(|address| through(address).ok_or_else(bad)).transpose()?;
        direct.config.application_name("tenantry");
        let [statement, silence, lock] =
            [STATEMENT_TIMEOUT, SILENCE_LIMIT, LOCK_TIMEOUT].map(|limit| limit.as_millis());
        direct.add_option(&format!(
            "-c statement_timeout={statement} -c lock_timeout={lock} -c idle_in_transaction_session_timeout={silence} \
             -c idle_session_timeout={silence} -c standard_conforming_strings=on {VALUES}"
        ));
        let mut address = direct.clone();
        // Fixes the search path, so that objects which other roles create in `public` are never found by
        // name.
        address.add_option("-c search_path=pg_catalog");
        let timeline = Arc::default();
        let main = pool(connections, address.clone(), &timeline);
        Ok(Self { path: path.to_owned(), address, direct, pooled, main, timeline, facts: Mutex::default() })
    }

    /// A connection to the main database.
    pub async fn connection(&self) -> Result<Pooled, Failure> {
        self.facts().await?;
        let connection = self.main.get().await.map_err(connecting)?;
        // This connection may be the first one to a promoted server.
        self.facts().await?;
        Ok(connection)
    }

    /// Returns an error unless the server answers now. Called before relying on cached state: it detects a
    /// promoted server.
    pub async fn alive(&self) -> Result<(), Failure> {
        self.connection().await.map(drop)
    }

    /// The server's timeline, as far as a connection has found it.
    pub async fn timeline(&self) -> Result<i32, Failure> {
        Ok(self.facts().await?.timeline)
    }

    /// Adds the server's address to a failure.
    pub fn named(&self, mut failure: Failure) -> Failure {
        // An invalid request is invalid on every server.
        if failure.class != FailureClass::Invalid {
            let (host, port) = self.address();
            failure.message = format!("`{}url` ({host}:{port}): {}", self.path, failure.message);
        }
        failure
    }

    /// Begins a transaction in the main database and runs these statements in it.
    pub async fn begin(&self, prelude: String) -> Result<Transaction<Pooled>, Failure> {
        self.facts().await?;
        begin(&self.main, prelude).await
    }

    /// Takes the advisory lock of this name in the main database; waits for it up to the lock timeout. A tenant's login
    /// that has it loses it.
    pub async fn lock(&self, name: &str) -> Result<ServerLock, Failure> {
        let mut connection = self.connection().await?;
        self.lock_until_closed(&mut connection, name).await?;
        Ok(AdvisoryLock::held(&lock_name(name), connection))
    }

    /// The same in a session of the main database, which holds the lock until it is closed.
    pub async fn lock_until_closed(&self, connection: &mut Session, name: &str) -> Result<(), Failure> {
        let name = lock_name(name);
        if connection.try_lock(&name).await.map_err(failure)? {
            return Ok(());
        }
        let backend = connection.backend().await.map_err(failure)?;
        let locked = async { connection.lock(&name).await.map_err(failure) };
        Box::pin(unblocked(self, backend, locked)).await
    }

    /// Opens a connection to the main database outside the pool; the database need not be set up.
    pub async fn connect(&self) -> Result<Session, Failure> {
        connect(&self.address).await
    }

    /// Opens a connection to another database on the server, outside the pool.
    pub async fn connect_to(&self, database: &Name) -> Result<Session, Failure> {
        connect(&self.address_of(database)).await
    }

    /// Opens a session of a tenant's role as its application does: directly or through the pooler.
    pub async fn log_in(
        &self,
        who: Who,
        role: &Name,
        password: &str,
        database: &str,
    ) -> Result<Session, Error> {
        let pooled = self.pooled.as_ref().filter(|_| who == Who::PooledLogin);
        let mut address = pooled.unwrap_or(&self.direct).clone();
        address.config.user(role.as_str()).password(password).dbname(database);
        timeout(LOGIN_TIMEOUT, Session::open(&address)).await.unwrap_or(Err(Error::TimedOut))
    }

    /// Whether a pooler is configured for tenants' applications.
    pub fn is_pooled(&self) -> bool {
        self.pooled.is_some()
    }

    /// Opens a connection to the main database outside the pool, which holds the advisory lock of this name
    /// until it is closed.
    pub async fn connect_with_lock(&self, name: &str) -> Result<Session, Failure> {
        self.facts().await?;
        let mut connection = connect(&self.address).await?;
        self.lock_until_closed(&mut connection, name).await?;
        Ok(connection)
    }

    /// A pool of connections to another database on the server; connects when used.
    pub fn pool_of(&self, database: &Name, connections: u32) -> Pool {
        pool(connections, self.address_of(database), &self.timeline)
    }

    fn address_of(&self, database: &Name) -> Address {
        let mut address = self.address.clone();
        address.config.dbname(database.as_str());
        address
    }

    /// How roles become members of others on this server.
    pub async fn memberships(&self) -> Result<Memberships, Failure> {
        Ok(self.facts().await?.memberships)
    }

    /// Host and port.
    pub fn address(&self) -> (String, u16) {
        (self.address.host(), self.address.port())
    }

    /// Identifies the main database among those of all servers: `host:port/database`.
    pub fn id(&self) -> String {
        let (host, port) = self.address();
        format!("{host}:{port}/{}", self.database())
    }

    /// The administrator's role.
    pub fn administrator(&self) -> &str {
        self.address.user()
    }

    /// Name of the main database.
    pub fn database(&self) -> &str {
        self.address.database()
    }

    /// Checks that the server answers, can write, has the listed extensions, and grants the administrator's role what
    /// tenants of this isolation need, connections included. Changes nothing.
    pub async fn probe(&self, isolation: Isolation, config: &Config) -> Result<(), Failure> {
        self.require(isolation, &config.app_role, config.connections).await?;
        let mut connection = connect(&self.address).await?;
        extensions::require_listed(&mut connection, &config.extensions).await?;
        connection.close().await;
        Ok(())
    }

    /// Whether the main database has a list of tenants. If not, it has no tenants. Changes nothing.
    pub async fn is_set_up(&self) -> Result<bool, Failure> {
        if self.facts.lock().await.is_some() {
            return Ok(true);
        }
        let mut connection = connect(&self.address).await?;
        let found = directory::exists(&mut connection).await?;
        connection.close().await;
        Ok(found)
    }

    /// Returns an error that names every missing right, unless the server has room for this number of connections and
    /// grants the administrator's role what the isolation needs.
    pub async fn require(
        &self,
        isolation: Isolation,
        app_role: &str,
        connections: u32,
    ) -> Result<(), Failure> {
        let mut connection = connect(&self.address).await?;
        self.check(&mut connection).await?;
        administrator::check(&mut connection, isolation, app_role, connections).await?;
        connection.close().await;
        Ok(())
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
                server = self.id(),
                "server timeline changed (promotion or restore); missing objects are created when next needed"
            );
        }
        // Not from the pool, which retries while the server is unreachable.
        let mut connection = connect(&self.address).await?;
        let found = self.check(&mut connection).await?;
        // The lock is released with the session.
        self.lock_until_closed(&mut connection, "directory").await?;
        directory::create(&mut connection).await?;
        connection.close().await;
        self.timeline.store(found.timeline, Ordering::Relaxed);
        *facts = Some(found);
        Ok(found)
    }

    /// Checks release and writability. The administrator's rights are checked where tenants are created: what exists can
    /// be read and removed with fewer.
    async fn check(&self, connection: &mut Session) -> Result<Facts, Failure> {
        let row = connection.row(
            "SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS standby,
                    rolsuper
             FROM pg_roles WHERE rolname = current_user",
            &[],
        )
        .await
        .and_then(|row| row.ok_or(Error::NoRow))
        .map_err(failure)?;
        let path = &self.path;
        let version: i32 = row.get("version");
        if version < OLDEST {
            return Err(Failure::fatal(
                "too_old",
                "the server is too old: upgrade it to PostgreSQL 15 or newer",
            ));
        }
        if row.get("standby") {
            let why = format!("the server of `{path}url` is a standby and cannot write: name the primary");
            return Err(Failure::retryable("read_only", why));
        }
        let timeline = connection.one(TIMELINE, &[]).await.map_err(failure)?;
        let options = version >= MEMBERSHIP_OPTIONS;
        Ok(Facts { memberships: Memberships { superuser: row.get("rolsuper"), options }, timeline })
    }
}

/// Connects within the time limit: a server that neither accepts nor rejects would block the caller.
async fn connect(address: &Address) -> Result<Session, Failure> {
    match timeout(CONNECT_TIMEOUT, Session::open(address)).await {
        Ok(connected) => connected.map_err(connecting),
        Err(_) => Err(connecting(Error::TimedOut)),
    }
}

/// Lifts the statement timeout for the current transaction: deleting a large tenant may take long.
pub async fn lift_timeout(transaction: &mut Session) -> Result<(), Failure> {
    run(transaction, "SET LOCAL statement_timeout = 0".to_owned()).await
}

/// Runs `work`, which uses other connections, while `lock` stays idle; sends a query from time to time, or
/// the server would end the session and release its lock.
pub async fn with_keepalive<T>(
    lock: &mut Session,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    with_keepalive_every(lock, SILENCE_LIMIT / 3, work).await
}

async fn with_keepalive_every<T>(
    lock: &mut Session,
    often: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = pin!(work);
    loop {
        match timeout(often, &mut work).await {
            Ok(done) => return done,
            Err(_) => run(lock, KEEPALIVE.to_owned()).await?,
        }
    }
}

/// Begins a transaction and runs these statements in it. If they fail, it is rolled back.
pub async fn begin(pool: &Pool, prelude: String) -> Result<Transaction<Pooled>, Failure> {
    let mut transaction = pool.begin().await.map_err(connecting)?;
    run(&mut transaction, prelude).await?;
    Ok(transaction)
}

/// Separates these locks from those of other programs in the same database.
fn lock_name(name: &str) -> String {
    format!("tenantry {name}")
}

/// Runs statements in one round trip.
pub async fn run(connection: &mut Session, sql: String) -> Result<(), Failure> {
    connection.run(&sql).await.map_err(failure)
}

/// Runs statements that create objects. If one of them exists already, the failure is retryable: the next
/// attempt reads its owner tag.
pub async fn create_objects(connection: &mut Session, sql: String) -> Result<(), Failure> {
    connection.run(&sql).await.map_err(|error| match is_duplicate(&error) {
        true => Failure::retryable(
            "just_made",
            "an object of this name was created at the same time by another session",
        ),
        false => failure(error),
    })
}

/// Creates a pool whose connections record the server's timeline: a promotion ends the connections to the
/// former primary.
fn pool(connections: u32, address: Address, seen: &Arc<AtomicI32>) -> Pool {
    let seen = seen.clone();
    let limits = Limits { sessions: connections, wait: CONNECT_TIMEOUT, idle: IDLE_TIMEOUT };
    Pool::new(address, limits, move |session| {
        let seen = seen.clone();
        Box::pin(async move {
            seen.store(session.one(TIMELINE, &[]).await?, Ordering::Relaxed);
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use tenantry_testkit::TestDatabase;

    use super::*;

    #[tokio::test]
    async fn idle_lock_session_sends_keepalives() {
        let Some(database) = TestDatabase::postgres().await else { return };
        let address: Address = database.url().parse().unwrap();
        let [mut lock, mut inside] =
            [Session::open(&address).await.unwrap(), Session::open(&address).await.unwrap()];
        let pid: i32 = lock.one("SELECT pg_backend_pid()", &[]).await.unwrap();
        let work = async {
            for _ in 0..10_000 {
                let query = "SELECT query FROM pg_stat_activity WHERE pid = $1";
                let asked: String = inside.one(query, &[&pid]).await.unwrap();
                if asked == KEEPALIVE {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        assert!(
            with_keepalive_every(&mut lock, Duration::from_millis(1), work).await.unwrap(),
            "no keepalive was seen"
        );
    }
}
