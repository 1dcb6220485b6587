//! The store: all SQL of the registry and the keyring, on SQLite and PostgreSQL alike.
//!
//! Writes are batches through one group-committing writer (`write_batch`, `commit_group`, `writer`); reads are queries of one text for both
//! databases, one file per aggregate. Nothing above it sees a connection, a transaction or a statement.

mod address;
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
use tokio::sync::Notify;

pub use audit::{AuditReport, Broken, Fault};
pub use database::OpenError;
pub use epochs::WENT_BACK;
pub use expiry::ExpiryError;
pub use keys::ClaimError;
pub use moving::{Contents, MoveError, Moved};
pub use notifier::{Notification, Notifier};
pub use providers::rows_of;
pub use sealing::{AUDIT_KEY, Sealing};
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
        Table::of::<entity::config::Model>(),
        Table::of::<entity::customer::Model>(),
        Table::of::<entity::subscription::Model>(),
        Table::of::<entity::invoice::Model>(),
        Table::of::<entity::isolation_report::Model>(),
        Table::of::<entity::archive::Model>(),
        Table::of::<entity::certificate::Model>(),
    ])
});

/// The tables by name, each with its columns and whether they may be null.
pub fn tables() -> BTreeMap<&'static str, BTreeMap<&'static str, bool>> {
    SCHEMA.describe()
}

/// Moves a live registry to another file or server: see [`moving`]. Gives what each table holds.
pub async fn move_registry(from: &str, to: &str) -> Result<Moved, MoveError> {
    moving::move_database(from, to, &SCHEMA, &migration::REGISTRY, &[]).await
}

/// Where the registry is and how it is opened.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `sqlite:///path/to/file` or `postgres://…`.
    pub url: String,
    /// Connections of the read pool.
    pub readers: u32,
}

/// A read failed.
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
    /// Notifications to other processes on the registry, if there can be any.
    outbox: Outbox,
    epochs: Arc<Epochs>,
}

impl Store {
    /// Opens the registry and brings its tables up to date.
    pub async fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        let database = Database::open(&config.url, config.readers, &SCHEMA, &migration::REGISTRY).await?;
        Ok(Self { database: Arc::new(database), outbox: Outbox::default(), epochs: Arc::default() })
    }

    /// Writes a batch; returns once it is durable or rejected. Dropping the future does not take the batch back.
    pub async fn commit(&self, batch: WriteBatch) -> Result<(), Rejected> {
        self.epochs.check()?;
        self.database.commit(batch).await
    }

    /// Whether the registry is an earlier one than this process has known: then it takes no writes from it.
    pub fn went_back(&self) -> bool {
        self.epochs.check().is_err()
    }

    /// Whether this registry was made with the keyring of this fingerprint. A new registry belongs to the first.
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

    /// Fails unless the registry answers now.
    pub async fn ping(&self) -> Result<(), ReadError> {
        self.reads().column::<i32>(query::Query::new("SELECT 1")).await.map(drop)
    }

    /// Writes what waits and closes all connections. Later calls fail as unavailable.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Removes from the files what wiped rows have left there: see [`Database::scrub`].
    pub async fn scrub(&self) -> Result<(), ReadError> {
        Ok(self.database.scrub().await?)
    }

    /// Woken after commits with new events or audit records.
    fn facts(&self) -> Arc<Notify> {
        self.database.writer().facts()
    }

    fn reads(&self) -> &Reads {
        &self.database.reads
    }
}
