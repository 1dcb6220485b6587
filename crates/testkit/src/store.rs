//! Throw-away registries on both stores. Those on PostgreSQL are copies of one migrated template, made once per server.

use std::ops::Deref;

use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, DbBackend, DbErr, Statement};
use tenantry_store::{Store, StoreConfig};
use tokio::sync::OnceCell;

use crate::database::{TestDatabase, admin, on_server};

const TEMPLATE: &str = "tenantry_template";
/// Any number: two test processes must not make the template at once.
const LOCK: &str = "SELECT pg_advisory_lock(7310579201443628912)";

impl TestDatabase {
    /// A PostgreSQL registry with all its tables; none, reported as skipped, where there is no server.
    pub async fn postgres_registry() -> Option<Self> {
        static TEMPLATE_READY: OnceCell<()> = OnceCell::const_new();
        let admin = admin()?;
        TEMPLATE_READY.get_or_init(|| make_template(&admin)).await;
        Some(Self::create(&admin, TEMPLATE).await)
    }
}

/// How many rows a table has, asked past the product.
pub async fn count_rows(url: &str, table: &str) -> i64 {
    let connection = connect(url).await;
    let query = format!("SELECT count(*) FROM {table}");
    let row =
        connection.query_one_raw(Statement::from_string(connection.get_database_backend(), query)).await;
    let count = row.expect("an answer").expect("a row").try_get_by_index(0).expect("a count");
    connection.close().await.expect("closes");
    count
}

/// A registry of a test's own, migrated and open.
pub struct TestStore {
    store: Store,
    // After the store: it is in use until then.
    database: TestDatabase,
}

impl TestStore {
    /// On SQLite.
    pub async fn sqlite() -> Self {
        Self::open(TestDatabase::sqlite()).await
    }

    /// On PostgreSQL; none, reported as skipped, where there is no server.
    pub async fn postgres() -> Option<Self> {
        Some(Self::open(TestDatabase::postgres_registry().await?).await)
    }

    async fn open(database: TestDatabase) -> Self {
        let store = open(database.url()).await;
        Self { store, database }
    }

    /// Where it is.
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// The same registry opened once more, as another process would.
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

/// Makes the template if the server has none, and brings its tables up to date.
async fn make_template(admin: &str) {
    let connection = connect(admin).await;
    execute(&connection, LOCK).await.expect("the template's lock");
    let query = format!("SELECT 1 FROM pg_database WHERE datname = '{TEMPLATE}'");
    let there = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, query)).await;
    if there.expect("the list of databases").is_none() {
        execute(&connection, &format!("CREATE DATABASE {TEMPLATE} TEMPLATE template0"))
            .await
            .expect("the template");
    }
    let url = on_server(admin, TEMPLATE);
    open(&url).await.close().await;
    connection.close().await.expect("closes");
}

async fn connect(url: &str) -> DatabaseConnection {
    let mut options = sea_orm::ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    Database::connect(options).await.expect("the database answers")
}

async fn execute(connection: &DatabaseConnection, sql: &str) -> Result<(), DbErr> {
    connection.execute_unprepared(sql).await.map(drop)
}

/// Makes each test run on both stores: `mod name { fn sqlite, fn postgres }`.
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
