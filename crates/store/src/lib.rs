//! The store: all SQL of the registry and the keyring, on SQLite and PostgreSQL alike.
//!
//! Writes are batches, which one writer commits in groups (`write_batch`, `commit_group`, `writer`). Reads are queries
//! with one SQL text for both databases, in one file per aggregate. Other crates see no connections, transactions or
//! statements.

mod address;
mod anchoring;
mod archives;
mod audit;
mod certificates;
mod chain;
mod commit_group;
mod connection;
pub mod database;
mod dialect;
pub mod entity;
mod epochs;
mod events;
mod expiry;
mod failed;
mod isolation;
pub mod keyring;
mod keys;
mod leader;
mod ledger;
mod members;
mod migration;
mod moving;
mod notifier;
mod operations;
pub mod outcome;
mod postgres;
mod providers;
mod query;
mod reads;
pub mod record;
mod resources;
mod rotations;
mod row;
mod rows;
mod sealing;
mod sessions;
mod slots;
mod sqlite;
mod stamp;
mod statement;
mod stats;
pub mod table;
mod tenants;
mod write_batch;
mod writer;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use tenantry_model::{Write, columns};
use tenantry_provider::Purged;
use tokio::sync::Notify;

pub use anchoring::AuditError;
pub use audit::{AuditReport, Broken, Fault};
pub use database::OpenError;
pub use epochs::WENT_BACK;
pub use expiry::ExpiryError;
pub use keys::ClaimError;
pub use moving::{Contents, MoveError, Moved};
pub use notifier::{Notification, Notifier};
pub use providers::rows_of;
pub use sealing::Sealing;
pub use stamp::Stamp;
pub use write_batch::{Rejected, WriteBatch};

pub use ledger::signal_row;

use database::Database;
use epochs::Epochs;
use failed::Failed;
use notifier::Outbox;
use reads::Reads;
use table::{Schema, Table};

/// Every table of the registry.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema(vec![
        Table::of::<entity::tenant::Model>(),
        Table::of::<entity::operation::Model>(),
        Table::of::<entity::step::Model>(),
        Table::of::<entity::signal::Model>(),
        Table::of::<entity::resource::Model>(),
        Table::of::<entity::slot::Model>(),
        Table::of::<entity::rotation::Model>(),
        Table::of::<entity::event::Model>(),
        Table::of::<entity::audit::Model>(),
        Table::of::<entity::audit_head::Model>(),
        Table::of::<entity::idempotency_key::Model>(),
        Table::of::<entity::api_key::Model>(),
        Table::of::<entity::credential::Model>(),
        Table::of::<entity::leader::Model>(),
        Table::of::<entity::member::Model>(),
        Table::of::<entity::invitation::Model>(),
        Table::of::<entity::sign_in_code::Model>(),
        Table::of::<entity::session::Model>(),
        Table::of::<entity::config::Model>(),
        Table::of::<entity::customer::Model>(),
        Table::of::<entity::subscription::Model>(),
        Table::of::<entity::invoice::Model>(),
        Table::of::<entity::isolation_report::Model>(),
        Table::of::<entity::archive::Model>(),
        Table::of::<entity::certificate::Model>(),
    ])
});

/// Returns the columns of each table, by name, with whether they accept NULL.
pub fn tables() -> BTreeMap<&'static str, BTreeMap<&'static str, bool>> {
    SCHEMA.describe()
}

/// Moves the registry to another file or server: see [`moving`]. Returns row count and checksum of each table.
pub async fn move_registry(from: &str, to: &str) -> Result<Moved, MoveError> {
    moving::move_database(from, to, &SCHEMA, &migration::REGISTRY, &[]).await
}

/// Address of the registry, and size of its read pool.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `sqlite:///path/to/file` or `postgres://…`.
    pub url: String,
    /// Maximum number of connections of the read pool.
    pub readers: u32,
}

/// Error of a read: the database failed, or a row has values that this release does not know.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the registry cannot be read: {0}")]
pub struct ReadError(String);

impl From<Failed> for ReadError {
    fn from(failed: Failed) -> Self {
        Self(failed.message)
    }
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
    /// Queue of notifications to the other processes on the registry; dropped on SQLite, which has one process.
    outbox: Outbox,
    epochs: Arc<Epochs>,
}

impl Store {
    /// Opens the registry and applies missing migrations.
    pub async fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        let database = Database::open(&config.url, config.readers, &SCHEMA, &migration::REGISTRY).await?;
        Ok(Self { database: Arc::new(database), outbox: Outbox::default(), epochs: Arc::default() })
    }

    /// Writes a batch. Returns once it is durable, or why it was rejected. The batch is written even if the caller drops
    /// the future.
    pub async fn commit(&self, batch: WriteBatch) -> Result<(), Rejected> {
        self.epochs.check()?;
        self.database.commit(batch).await
    }

    /// Whether the registry was replaced by an older copy while this process runs; the process then writes no more.
    pub fn went_back(&self) -> bool {
        self.epochs.check().is_err()
    }

    /// Whether this registry belongs to the keyring with this fingerprint. A new registry is assigned to the first
    /// keyring that calls this.
    pub async fn belongs_to(&self, keyring: &str) -> Result<bool, Rejected> {
        let (key, none) = (columns! { "id": 1 }, columns! { "keyring": () });
        let first = Write::update_if("leader", key.clone(), none, columns! { "keyring": keyring });
        let again = Write::update_if("leader", key, columns! { "keyring": keyring }, columns! {});
        for write in [first, again] {
            match self.commit(WriteBatch::new(vec![write])).await {
                Ok(()) => return Ok(true),
                Err(Rejected::Stale { .. }) => {}
                Err(rejected) => return Err(rejected),
            }
        }
        Ok(false)
    }

    /// Returns an error unless the registry answers a query now.
    pub async fn ping(&self) -> Result<(), ReadError> {
        self.reads().column::<i32>(query::Query::new("SELECT 1")).await.map(drop)
    }

    /// Writes the waiting batches and closes all connections. Later calls return an error.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Removes the copies of deleted rows from the registry's files, and returns the files; none on PostgreSQL.
    pub async fn purge(&self) -> Result<Vec<Purged>, ReadError> {
        Ok(self.database.purge().await?)
    }

    /// Notified after commits of events or audit records.
    fn facts(&self) -> Arc<Notify> {
        self.database.writer().facts()
    }

    fn reads(&self) -> &Reads {
        &self.database.reads
    }
}
