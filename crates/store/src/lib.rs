//! The store: all SQL of the registry, on SQLite and PostgreSQL alike.
//!
//! Writes are units through one group-committing writer (`unit`, `writer`); reads go through the entities, one file
//! per aggregate. Nothing above it sees a connection, a transaction or a statement.

mod archives;
mod audit;
mod batch;
mod bulletin;
mod certificates;
mod chain;
mod connection;
pub mod database;
pub mod entity;
mod epochs;
mod events;
mod expiry;
mod isolation;
pub mod keyring;
mod keys;
mod lead;
mod ledger;
mod members;
mod migration;
mod moving;
mod operations;
pub mod outcome;
mod page;
mod places;
mod providers;
mod reading;
mod resources;
mod rotations;
mod rows;
mod sealing;
mod sql;
mod stamp;
mod stats;
pub mod table;
mod tenants;
mod unit;
mod writer;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use sea_orm::{DatabaseConnection, DbErr};
use tenantry_model::{Write, columns};
use tokio::sync::Notify;

pub use audit::{AuditReport, Broken, Fault};
pub use bulletin::{Bulletin, News};
pub use database::OpenError;
pub use epochs::WENT_BACK;
pub use expiry::ExpiryError;
pub use keys::ClaimError;
pub use migration::Migrator;
pub use moving::move_database;
pub use moving::{Contents, MoveError, Moved};
pub use sealing::{AUDIT_KEY, Sealing};
pub use stamp::Stamp;
pub use unit::{Rejected, Unit};

pub use ledger::signal_row;

use bulletin::Board;
use database::Database;
use epochs::Epochs;
use table::{Schema, Table};

/// Every table of the registry.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema(vec![
        Table::of::<entity::tenant::Entity>(),
        Table::of::<entity::operation::Entity>(),
        Table::of::<entity::step::Entity>(),
        Table::of::<entity::signal::Entity>(),
        Table::of::<entity::resource::Entity>(),
        Table::of::<entity::place::Entity>(),
        Table::of::<entity::rotation::Entity>(),
        Table::of::<entity::event::Entity>(),
        Table::of::<entity::audit::Entity>(),
        Table::of::<entity::audit_head::Entity>(),
        Table::of::<entity::idempotency_key::Entity>(),
        Table::of::<entity::api_key::Entity>(),
        Table::of::<entity::credential::Entity>(),
        Table::of::<entity::runner::Entity>(),
        Table::of::<entity::member::Entity>(),
        Table::of::<entity::invitation::Entity>(),
        Table::of::<entity::sign_in_code::Entity>(),
        Table::of::<entity::config::Entity>(),
        Table::of::<entity::customer::Entity>(),
        Table::of::<entity::subscription::Entity>(),
        Table::of::<entity::invoice::Entity>(),
        Table::of::<entity::isolation_report::Entity>(),
        Table::of::<entity::archive::Entity>(),
        Table::of::<entity::certificate::Entity>(),
    ])
});

/// The tables by name, each with its columns and whether they may be null.
pub fn tables() -> BTreeMap<&'static str, BTreeMap<&'static str, bool>> {
    let columns = |table: &Table| table.columns.iter().map(|column| (column.name, column.nullable)).collect();
    SCHEMA.0.iter().map(|table| (table.name, columns(table))).collect()
}

/// Moves a live registry to another file or server: see [`moving`]. Gives what each table holds.
pub async fn move_registry(from: &str, to: &str) -> Result<Moved, MoveError> {
    move_database::<Migrator>(from, to, &SCHEMA, &[]).await
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

impl ReadError {
    /// A column that is not there, or cannot be compared with such a value.
    fn column(name: &str) -> Self {
        Self(format!("column {name} cannot be asked for like this"))
    }
}

impl From<DbErr> for ReadError {
    fn from(error: DbErr) -> Self {
        Self(error.to_string())
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
    /// Where other processes on the registry are told, if there can be any.
    board: Board,
    epochs: Arc<Epochs>,
}

impl Store {
    /// Opens the registry and brings its tables up to date.
    pub async fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        let database = Database::open::<Migrator>(&config.url, config.readers, &SCHEMA).await?;
        Ok(Self { database: Arc::new(database), board: Board::default(), epochs: Arc::default() })
    }

    /// Writes a unit; returns once it is durable or rejected. Dropping the future does not take the unit back.
    pub async fn commit(&self, unit: Unit) -> Result<(), Rejected> {
        self.epochs.check()?;
        self.database.commit(unit).await
    }

    /// Whether the registry is an earlier one than this process has known: then it takes no writes from it.
    pub fn went_back(&self) -> bool {
        self.epochs.check().is_err()
    }

    /// Whether this registry was made with the keyring of this fingerprint. A new registry belongs to the first.
    pub async fn belongs_to(&self, keyring: &str) -> Result<bool, Rejected> {
        let (key, none) = (columns! { "id": 1 }, columns! { "keyring": () });
        let first = Write::update_if("runner", key.clone(), none, columns! { "keyring": keyring });
        let again = Write::update_if("runner", key, columns! { "keyring": keyring }, columns! {});
        for write in [first, again] {
            match self.commit(Unit::new(vec![write])).await {
                Ok(()) => return Ok(true),
                Err(Rejected::Stale { .. }) => {}
                Err(rejected) => return Err(rejected),
            }
        }
        Ok(false)
    }

    /// Fails unless the registry answers now.
    pub async fn ping(&self) -> Result<(), ReadError> {
        Ok(self.reads().ping().await?)
    }

    /// Writes what waits and closes all connections. Later calls fail as unavailable.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Removes from the files what wiped rows have left there: see [`Database::scrub`].
    pub async fn scrub(&self) -> Result<(), ReadError> {
        self.database.scrub().await.map_err(|failed| ReadError(failed.message))
    }

    /// Woken after commits with new events or audit records.
    fn facts(&self) -> Arc<Notify> {
        self.database.writer().facts()
    }

    fn reads(&self) -> &DatabaseConnection {
        &self.database.reads
    }
}
