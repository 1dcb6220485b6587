//! The data of one measured server: a folder on the disk, and on PostgreSQL two databases.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, postgres::PgConnectOptions};
use tempfile::TempDir;

use crate::process;

/// Store of registry and keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Files.
    Sqlite,
    /// A PostgreSQL server. The tenants' pool stays a SQLite file.
    Postgres,
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        })
    }
}

/// A PostgreSQL server to measure on.
#[derive(Clone)]
pub struct Postgres {
    url: String,
    /// Process id of the postmaster.
    pub postmaster: u32,
    /// Version of the server, such as `18.1`.
    pub version: String,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Postgres {
    /// Connects to the server at this URL, which must run on this machine.
    pub async fn connect(url: &str) -> Result<Self> {
        let mut connection = PgConnection::connect(url).await.context("cannot reach PostgreSQL")?;
        let row = sqlx::query("SELECT pg_backend_pid(), current_setting('server_version')")
            .fetch_one(&mut connection)
            .await?;
        let (backend, version): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
        // Before the connection closes and its process ends.
        let postmaster = process::parent(u32::try_from(backend)?)?;
        connection.close().await?;
        Ok(Self { url: url.to_owned(), postmaster, version })
    }

    /// The URL of another database of the server.
    pub fn database_url(&self, name: &str) -> String {
        let (base, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let server = base.rsplit_once('/').map_or(base, |(server, _)| server);
        if query.is_empty() { format!("{server}/{name}") } else { format!("{server}/{name}?{query}") }
    }

    /// A connection to one of its databases.
    pub async fn open(&self, name: &str) -> Result<PgConnection> {
        let options: PgConnectOptions = self.database_url(name).parse()?;
        Ok(options.disable_statement_logging().statement_cache_capacity(1024).connect().await?)
    }

    /// A connection to the server's default database, which is not measured.
    pub async fn open_own(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url).await?)
    }

    /// Runs statements on the server's default database.
    pub async fn administer(&self, statements: &[String]) -> Result<()> {
        let mut connection = self.open_own().await?;
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement.as_str())).execute(&mut connection).await?;
        }
        Ok(connection.close().await?)
    }
}

/// The data of one server.
pub struct Sandbox {
    folder: TempDir,
    /// Server and name of the registry's database; the keyring's has the suffix `_keyring`.
    postgres: Option<(Postgres, String)>,
}

impl Sandbox {
    /// Creates a sandbox, on PostgreSQL if a server is given.
    pub async fn create(postgres: Option<&Postgres>) -> Result<Self> {
        // Commits must reach a disk, and the usual temporary folder may be in memory.
        let on_disk = Path::new("/var/tmp");
        let base = if on_disk.is_dir() { on_disk.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("tenantry-bench-").tempdir_in(base)?;
        let postgres = match postgres {
            None => None,
            Some(server) => {
                let n = NUMBER.fetch_add(1, Ordering::Relaxed);
                let name = format!("tenantry_bench_{}_{n}", std::process::id());
                let create = |name: &str| format!("CREATE DATABASE \"{name}\"");
                server.administer(&[create(&name), create(&format!("{name}_keyring"))]).await?;
                Some((server.clone(), name))
            }
        };
        Ok(Self { folder, postgres })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The PostgreSQL server, if the sandbox has one.
    pub fn postgres(&self) -> Option<&Postgres> {
        self.postgres.as_ref().map(|(server, _)| server)
    }

    /// Kind of database that the sandbox stores registry and tenants in.
    pub fn store(&self) -> Store {
        if self.postgres.is_some() { Store::Postgres } else { Store::Sqlite }
    }

    /// Names of the databases on PostgreSQL: registry and keyring.
    pub fn databases(&self) -> Option<[String; 2]> {
        self.postgres.as_ref().map(|(_, name)| [name.clone(), format!("{name}_keyring")])
    }

    /// The SQLite file of this name: `registry`, `keyring` or `tenants`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.db"))
    }

    /// Deletes the folder and the databases. Those of a failed bench are deleted with its PostgreSQL server.
    pub async fn remove(self) -> Result<()> {
        if let Some((server, name)) = &self.postgres {
            let drop = |name: &str| format!("DROP DATABASE \"{name}\" WITH (FORCE)");
            server.administer(&[drop(name), drop(&format!("{name}_keyring"))]).await?;
        }
        Ok(self.folder.close()?)
    }
}
