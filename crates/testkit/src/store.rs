//! Throw-away databases: SQLite in a temporary folder, PostgreSQL as a database of its own on the server that
//! `TENANTRY_TEST_POSTGRES` names (an administrator's URL). All are gone when their test ends.
//!
//! PostgreSQL registries are copies of one migrated template, made once per server.

use std::ops::Deref;

use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, DbBackend, DbErr, Statement};
use tempfile::TempDir;
use tenantry_control::store::{Store, StoreConfig};
use tenantry_model::TenantId;
use tokio::sync::OnceCell;

const TEMPLATE: &str = "tenantry_template";
/// Any number: two test processes must not make the template at once.
const LOCK: &str = "SELECT pg_advisory_lock(7310579201443628912)";

/// An empty database of a test's own.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    /// Dropped after use: a folder, or a database on the server of this administrator's URL.
    folder: Option<TempDir>,
    server: Option<(String, String)>,
}

impl TestDatabase {
    /// A SQLite file in a temporary folder.
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        Self { url, folder: Some(folder), server: None }
    }

    /// A PostgreSQL database; none, reported as skipped, where there is no server.
    pub async fn postgres() -> Option<Self> {
        Some(Self::create(&admin()?, "template0").await)
    }

    /// A PostgreSQL registry with all its tables; none, reported as skipped, where there is no server.
    pub async fn postgres_registry() -> Option<Self> {
        static TEMPLATE_READY: OnceCell<()> = OnceCell::const_new();
        let admin = admin()?;
        TEMPLATE_READY.get_or_init(|| make_template(&admin)).await;
        Some(Self::create(&admin, TEMPLATE).await)
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its folder, if it is SQLite.
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.folder.as_ref().map(TempDir::path)
    }

    async fn create(admin: &str, template: &str) -> Self {
        let name = format!("tenantry_{}", TenantId::new().suffix());
        let connection = connect(admin).await;
        execute(&connection, &format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await
            .expect("a database");
        connection.close().await.expect("closes");
        Self { url: on_server(admin, &name), folder: None, server: Some((admin.to_owned(), name)) }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some((admin, name)) = self.server.take() else { return };
        // The test's runtime may be ending, so this needs one of its own.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime
                .block_on(async {
                    let connection = connect(&admin).await;
                    execute(&connection, &format!("DROP DATABASE {name} WITH (FORCE)")).await
                })
                .map_err(std::io::Error::other)
        });
        if !matches!(dropped.join(), Ok(Ok(()))) {
            eprintln!("a test's database was left behind");
        }
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

fn admin() -> Option<String> {
    let admin = std::env::var("TENANTRY_TEST_POSTGRES").ok();
    if admin.is_none() {
        crate::skip::skip("postgres", "TENANTRY_TEST_POSTGRES is not set", "cargo xtask test");
    }
    admin
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

/// The URL of another database on the same server.
fn on_server(admin: &str, database: &str) -> String {
    let (address, query) = admin.split_once('?').map_or((admin, None), |(a, q)| (a, Some(q)));
    let server = address
        .rfind('/')
        .filter(|i| *i > address.find("//").map_or(0, |j| j + 1))
        .map_or(address, |i| &address[..i]);
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    format!("{server}/{database}{query}")
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
