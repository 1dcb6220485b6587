//! A database as the control plane uses it: migrated, read through a pool of read-only connections, written through
//! one writer. The registry and the keyring are one each.

use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, DbErr, TransactionTrait as _};
use sea_orm_migration::MigratorTrait;
use sqlx::{ConnectOptions as _, Connection as _};

use super::connection::{Address, Connection, Failed, timeline};
use super::sql::Dialect;
use super::table::Schema;
use super::unit::{Rejected, Unit};
use super::writer::Writer;

/// Any number that no other use of the database takes; keeps two starting processes from migrating at once.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_lock(7310579201443628911)";

/// Why a database cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is wrong.
    #[error("{0}")]
    Address(String),
    /// It does not answer, or its file cannot be opened.
    #[error("the database cannot be opened: {0}")]
    Unavailable(String),
    /// Its tables cannot be brought up to date, or are newer than this program.
    #[error("the database cannot be migrated: {0}")]
    Migration(String),
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// An open database.
pub struct Database {
    /// For reads. Writing through it fails.
    pub reads: DatabaseConnection,
    writer: Writer,
    address: Address,
}

impl Database {
    /// Migrates a database and opens it.
    pub async fn open<M: MigratorTrait>(
        url: &str,
        readers: u32,
        schema: &'static Schema,
    ) -> Result<Self, OpenError> {
        let address: Address = url.parse().map_err(OpenError::Address)?;
        migrate::<M>(&address).await?;
        let unavailable = |failed: Failed| OpenError::Unavailable(failed.message);
        let mut connection = Connection::open(&address).await.map_err(unavailable)?;
        let timeline = connection.timeline().await.map_err(unavailable)?;
        let reads = address.open_for_reading(readers).await?;
        Ok(Self { reads, writer: Writer::start(schema, address.clone(), connection, timeline), address })
    }

    /// Writes a unit: see [`Writer::commit`].
    pub async fn commit(&self, unit: Unit) -> Result<(), Rejected> {
        self.writer.commit(unit).await
    }

    /// Where it is.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The writer.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Removes from the files what changed and deleted rows have left there: see [`scrub`].
    pub async fn scrub(&self) -> Result<(), Failed> {
        scrub(&self.address).await
    }

    /// Writes what waits and closes all connections.
    pub async fn close(&self) {
        self.writer.close().await;
        if let Err(error) = self.reads.close_by_ref().await {
            tracing::debug!(%error, "the readers did not close in order");
        }
    }
}

/// Removes from SQLite's files what changed and deleted rows have left there: pages are wiped as they are written
/// (`secure_delete`), and this folds the log, which holds older copies, into them. Fails while somebody still reads those.
/// PostgreSQL does that in its own time (vacuum, log recycling).
pub(super) async fn scrub(address: &Address) -> Result<(), Failed> {
    if address.dialect() == Dialect::Postgres {
        return Ok(());
    }
    let mut connection = Connection::open(address).await?;
    let folded = connection.fold_log().await;
    connection.close().await;
    folded
}

/// All migrations that are missing, or none: on SQLite a process that dies between two statements of one would otherwise
/// leave tables behind that the next one stumbles over.
async fn all_at_once<M: MigratorTrait>(connection: &DatabaseConnection) -> Result<(), DbErr> {
    let transaction = connection.begin().await?;
    if connection.get_database_backend() == DbBackend::Postgres {
        // An index of many rows takes its time.
        transaction.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
    }
    M::up(&transaction, None).await?;
    transaction.commit().await
}

/// Brings a database's tables up to date.
pub(super) async fn migrate<M: MigratorTrait>(address: &Address) -> Result<(), OpenError> {
    // Held until this connection closes.
    let lock = match address {
        Address::Postgres(options) => {
            let mut connection = options.connect().await?;
            let refused = |failed: Failed| {
                OpenError::Address(format!("the database {}: {}", address.place(), failed.message))
            };
            timeline(&mut connection).await.map_err(refused)?;
            sqlx::query(MIGRATION_LOCK).execute(&mut connection).await?;
            Some(connection)
        }
        Address::Sqlite(_) => None,
    };
    let connection = address.open_for_migration().await?;
    let migrated = all_at_once::<M>(&connection).await.map_err(|e| OpenError::Migration(e.to_string()));
    let closed = connection.close().await.map_err(|e| OpenError::Unavailable(e.to_string()));
    if let Some(lock) = lock {
        lock.close().await?;
    }
    migrated.and(closed)
}
