//! Temporary databases of tests: a SQLite file in a temporary folder, or a PostgreSQL database on the server
//! of `TENANTRY_TEST_POSTGRES` (an administrator's URL).

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tenantry_model::TenantId;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// A temporary, empty database. Dropping it deletes the database, with the databases and roles that it lists.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    /// Folder of a SQLite database.
    folder: Option<TempDir>,
    /// Administrator's URL and name of a PostgreSQL database.
    server: Option<(String, String)>,
}

impl TestDatabase {
    /// A SQLite file in a temporary folder.
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        Self { url, folder: Some(folder), server: None }
    }

    /// A PostgreSQL database; none, reported as skipped, without a server.
    pub async fn postgres() -> Option<Self> {
        Some(Self::on(&admin()?).await)
    }

    /// A PostgreSQL database on the server of this administrator's URL.
    pub async fn on(admin: &str) -> Self {
        Self::create(admin, "template0").await
    }

    /// URL of the database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The folder of a SQLite database.
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.folder.as_ref().map(TempDir::path)
    }

    /// A unique name for the application's role, because roles are shared by the databases of a server.
    pub fn app_role(&self) -> String {
        format!("app_{}", self.url.rsplit('_').next().unwrap_or_default())
    }

    /// A copy of this PostgreSQL database, which must have no connections.
    pub async fn copy(&self) -> Self {
        let (admin, name) = self.server.as_ref().expect("a database on a server");
        Self::create(admin, name).await
    }

    pub(crate) async fn create(admin: &str, template: &str) -> Self {
        let name = format!("tenantry_{}", TenantId::new().suffix());
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template}");
        execute(admin, sql).await.expect("a database");
        Self { url: on_server(admin, &name), folder: None, server: Some((admin.to_owned(), name)) }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some((admin, name)) = self.server.take() else { return };
        let (url, app_role) = (self.url.clone(), self.app_role());
        // The test's runtime may be shutting down, so this starts another one.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let drop = async {
                let statements = cleanup(&url).await.unwrap_or_default();
                execute(&admin, format!("DROP DATABASE {name} WITH (FORCE)")).await?;
                for sql in statements {
                    execute(&admin, sql).await?;
                }
                execute(&admin, format!("DROP ROLE IF EXISTS {app_role}, {app_role}_tenants")).await
            };
            runtime.block_on(drop).map_err(std::io::Error::other)
        });
        // The server ends a database only when every session has noticed, and that of another task of this runtime notices
        // while it makes progress.
        let is_shared =
            Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
        let dropped = if is_shared { block_in_place(|| dropped.join()) } else { dropped.join() };
        if !matches!(dropped, Ok(Ok(()))) {
            eprintln!("a temporary database was not deleted");
        }
    }
}

/// Statements that drop the databases and roles listed in this database: those of tenants, second logins,
/// warm ones.
async fn cleanup(url: &str) -> sqlx::Result<Vec<String>> {
    let mut connection = PgConnection::connect(url).await?;
    let listed = sqlx::query_scalar(
        "SELECT format(unnest(CASE WHEN isolation LIKE '%database' THEN '{DROP DATABASE IF EXISTS %I WITH (FORCE)}'::text[] END
                              || ARRAY['DROP ROLE IF EXISTS %I']), name) FROM tenantry.homes
         UNION ALL SELECT format('DROP ROLE IF EXISTS %I', name) FROM tenantry.logins",
    );
    let sql = listed.fetch_all(&mut connection).await;
    connection.close().await?;
    sql
}

/// Runs a statement on the database of this URL.
pub async fn execute(url: &str, sql: String) -> sqlx::Result<()> {
    if url.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(url).await?;
        connection.execute(AssertSqlSafe(sql)).await?;
        return connection.close().await;
    }
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(AssertSqlSafe(sql)).await?;
    connection.close().await
}

/// The administrator's URL; none, reported as skipped, without a server.
pub fn admin() -> Option<String> {
    let admin = std::env::var("TENANTRY_TEST_POSTGRES").ok();
    if admin.is_none() {
        crate::skip::skip("postgres", "TENANTRY_TEST_POSTGRES is not set", "cargo xtask test");
    }
    admin
}

/// The URL of another database on the same server.
pub fn on_server(admin: &str, database: &str) -> String {
    let (address, query) = admin.split_once('?').map_or((admin, None), |(a, q)| (a, Some(q)));
    let server = address
        .rfind('/')
        .filter(|i| *i > address.find("//").map_or(0, |j| j + 1))
        .map_or(address, |i| &address[..i]);
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    format!("{server}/{database}{query}")
}
