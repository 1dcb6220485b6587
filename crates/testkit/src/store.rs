//! Temporary registries on SQLite and PostgreSQL. Those on PostgreSQL are copies of one migrated template per
//! server.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Deref;
use std::time::{Duration, Instant};

use tenantry_store::{Store, StoreConfig};
use tokio::sync::OnceCell;

use crate::database::{TestDatabase, admin, on_server};
use crate::raw::Raw;

/// Longest time for the leader to number events, sufficient on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Advisory lock, so that only one test process at a time creates the template.
const LOCK: &str = "SELECT pg_advisory_lock(7310579201443628912)";

impl TestDatabase {
    /// A PostgreSQL registry with every table; none, reported as skipped, without a server.
    pub async fn postgres_registry() -> Option<Self> {
        static TEMPLATE_READY: OnceCell<()> = OnceCell::const_new();
        let admin = admin()?;
        TEMPLATE_READY.get_or_init(|| make_template(&admin)).await;
        Some(Self::create(&admin, &template()).await)
    }
}

/// Number of rows of a table, read without the product's code.
pub async fn count_rows(url: &str, table: &str) -> i64 {
    let connection = Raw::connect(url).await;
    let rows = connection.rows(&format!("SELECT count(*) FROM {table}")).await;
    connection.close().await;
    rows[0].get(0)
}

/// Waits until the leader has numbered every event of this registry: until then a list of events lacks them.
pub async fn events_are_numbered(url: &str) {
    let started = Instant::now();
    let connection = Raw::connect(url).await;
    while !connection.rows("SELECT 1 FROM events WHERE seq IS NULL").await.is_empty() {
        assert!(started.elapsed() < PATIENCE, "events stay without a number");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    connection.close().await;
}

/// A temporary registry, migrated and open.
pub struct TestStore {
    store: Store,
    // Dropped after the store, which uses it.
    database: TestDatabase,
}

impl TestStore {
    /// On SQLite.
    pub async fn sqlite() -> Self {
        Self::open(TestDatabase::sqlite()).await
    }

    /// On PostgreSQL; none, reported as skipped, without a server.
    pub async fn postgres() -> Option<Self> {
        Some(Self::open(TestDatabase::postgres_registry().await?).await)
    }

    async fn open(database: TestDatabase) -> Self {
        let store = open(database.url()).await;
        Self { store, database }
    }

    /// Database of the registry.
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// Opens the same registry again, as another process does.
    pub async fn open_again(&self) -> Store {
        open(self.database.url()).await
    }
}

impl Deref for TestStore {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.store
    }
}

async fn open(url: &str) -> Store {
    Store::open(&StoreConfig { url: url.to_owned(), readers: 4 }).await.expect("the registry opens")
}

/// Name of the template: that of these tables, because builds of several commits may share the tests' server.
fn template() -> String {
    let mut hasher = DefaultHasher::new();
    tenantry_store::tables().hash(&mut hasher);
    format!("registry_template_{:016x}", hasher.finish())
}

/// Creates the template if the server has none, and migrates it.
async fn make_template(admin: &str) {
    let template = template();
    let connection = Raw::connect(admin).await;
    connection.execute(LOCK).await;
    let query = format!("SELECT 1 FROM pg_database WHERE datname = '{template}'");
    if connection.rows(&query).await.is_empty() {
        connection.execute(&format!("CREATE DATABASE {template} TEMPLATE template0")).await;
    }
    let url = on_server(admin, &template);
    open(&url).await.close().await;
    connection.close().await;
}

/// Runs each test on SQLite and PostgreSQL: `mod name { fn sqlite, fn postgres }`.
#[macro_export]
macro_rules! on_both_stores {
    ($($(#[$meta:meta])* async fn $name:ident($store:ident: $type:ty) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn on_store($store: $type) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                on_store($crate::TestStore::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                if let Some(store) = $crate::TestStore::postgres().await {
                    on_store(store).await;
                }
            }
        }
    )*};
}
