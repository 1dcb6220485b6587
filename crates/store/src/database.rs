//! A database of Tenantry, which is the registry or the keyring: its migrations, a pool of read-only connections, and one
//! writer.

use tenantry_provider::Purged;
use tenantry_sqlite::Purger;
use tokio::runtime::Handle;

use super::address::Address;
use super::connection::Connection;
use super::failed::{Cause, Failed};
use super::migration::Migrations;
use super::postgres::{Access, Session};
use super::reads::Reads;
use super::table::Schema;
use super::write_batch::{Rejected, WriteBatch};
use super::writer::Writer;

/// Takes the lock that prevents two starting processes from migrating at the same time. The number is arbitrary.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_lock(7310579201443628911)";
/// Lets no role connect to a new database that has not been granted it: a tenant's login could take Tenantry's locks there.
const CLOSE_NEW_DATABASE: &str = include_str!("close_new_database.sql");

/// Error when a database is opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is wrong.
    #[error("{0}")]
    Address(String),
    /// The database does not answer, or its file cannot be opened.
    #[error("the database cannot be opened: {0}")]
    Unavailable(String),
    /// The tables cannot be migrated, or a newer release has migrated them.
    #[error("the database cannot be migrated: {0}")]
    Migration(String),
}

impl From<Failed> for OpenError {
    fn from(failed: Failed) -> Self {
        Self::Unavailable(failed.message)
    }
}

/// An open database.
pub struct Database {
    /// For reads.
    pub(super) reads: Reads,
    writer: Writer,
    address: Address,
    /// Of a SQLite file.
    purger: Option<Purger>,
}

impl Database {
    /// Migrates a database and opens it.
    pub(super) async fn open(
        url: &str,
        readers: u32,
        schema: &'static Schema,
        migrations: &'static Migrations,
    ) -> Result<Self, OpenError> {
        let address: Address = url.parse().map_err(OpenError::Address)?;
        let opened = async move {
            migrate(&address, migrations).await?;
            let mut connection = Connection::open(&address).await?;
            let timeline = connection.timeline().await?;
            let reads = Reads::open(&address, readers).await?;
            let writer = Writer::start(schema, address.clone(), connection, timeline);
            let writer = writer.map_err(|why| OpenError::Unavailable(format!("no thread: {why}")))?;
            let purger = match &address {
                Address::Sqlite(path) => Some(Purger::new(path.clone())),
                Address::Postgres(_) => None,
            };
            Ok(Self { reads, writer, address, purger })
        };
        apart(opened).await.unwrap_or_else(|failed| Err(failed.into()))
    }

    /// Writes a batch: see [`Writer::commit`].
    pub async fn commit(&self, batch: WriteBatch) -> Result<(), Rejected> {
        self.writer.commit(batch).await
    }

    /// Address of the database.
    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    /// The writer.
    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Removes the copies of deleted rows from SQLite's files, and returns the files. Returns an error while another
    /// connection keeps a transaction open. Does nothing on PostgreSQL, whose vacuum and log recycling remove them in time.
    pub(super) async fn purge(&self) -> Result<Vec<Purged>, Failed> {
        let Some(purger) = &self.purger else { return Ok(Vec::new()) };
        purger.purge().await.map_err(|why| Failed { cause: Cause::Unavailable, message: why.to_string() })
    }

    /// Writes the waiting batches and closes all connections.
    pub async fn close(&self) {
        self.writer.close().await;
        self.reads.close().await;
    }
}

/// Runs work that may block on a thread for blocking work, so that other tasks are not delayed.
pub(super) async fn apart<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Failed> {
    let runtime = Handle::current();
    let done = tokio::task::spawn_blocking(move || runtime.block_on(work)).await;
    done.map_err(|why| Failed { cause: Cause::Unavailable, message: why.to_string() })
}

/// Applies all missing migrations in one transaction. Blocks the thread.
pub(super) async fn migrate(address: &Address, migrations: &Migrations) -> Result<(), OpenError> {
    let mut connection = match address {
        Address::Postgres(server) => {
            // A session without time limits, because creating an index on a large table may take long.
            let mut session = Session::open(server, Access::Plain).await?;
            session.timeline().await.map_err(|failed| {
                OpenError::Address(format!("the database {}: {}", address.place(), failed.message))
            })?;
            // Overrides a limit that is set for the role or the database.
            session.execute("SET statement_timeout = 0").await?;
            // Held until this connection closes.
            session.query(MIGRATION_LOCK, &[]).await?;
            session.execute(CLOSE_NEW_DATABASE).await?;
            Connection::Postgres(Box::new(session))
        }
        Address::Sqlite(_) => Connection::open(address).await?,
    };
    let migrated = migrations.run(&mut connection, address.dialect()).await;
    connection.close().await;
    migrated.map_err(OpenError::Migration)
}
