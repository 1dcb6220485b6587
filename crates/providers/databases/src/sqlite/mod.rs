//! What the two SQLite providers share: an open file, its migrations and seeds, its one writer, and access to
//! one tenant's rows. Each provider decides whether tenants share a file.

pub mod catalogue;
pub mod client;
pub mod rows;
pub mod transfer;
pub(crate) mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use sha2::{Digest, Sha256};
use tenantry_model::Failure;

use crate::content::Content;
use crate::migrations::{self, Dialect, Policy};
use crate::shape::Shape;
use crate::tables::Catalogue;
use tenantry_provider::connections::Connections;
use tenantry_provider::files::Files;
use tenantry_provider::open_files::identity;
use tenantry_provider::resource_locks::blocking;
use tenantry_provider::verbs::Observed;
use writer::{Session, Work, Writer};

/// Reads migrations and seeds, and applies the migrations to a database in memory: this finds their errors
/// and their tables before a file is touched.
pub(crate) async fn content(
    set: &str,
    migrations: &Option<PathBuf>,
    seeds: &Option<PathBuf>,
) -> Result<Content, Failure> {
    let (set, migrations, seeds) = (set.to_owned(), migrations.clone(), seeds.clone());
    blocking(move || {
        let files = Files::migrations(migrations.as_deref());
        let migrations = migrations::load(&files, &set, Dialect::Sqlite, &Policy::default())?;
        let planned = client::rehearse(&migrations)?;
        Content::load(&set, migrations, Some(planned), seeds.as_deref())
    })
    .await
}

/// A tenant's recorded state in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RecordedTenant {
    /// Time of completion.
    pub completed: Option<String>,
    /// The seed that filled the tables.
    pub seed: Option<String>,
    /// Version of the last applied migration.
    pub version: Option<String>,
    /// Definition of the file's schema.
    pub shape: Shape,
}

impl RecordedTenant {
    /// Compares the state with what the migrations create. `differs` has other differences.
    pub fn observed(self, content: &Content, mut differs: Vec<String>) -> Observed {
        if self.completed.is_none() {
            differs.push("it was never completed".to_owned());
        }
        match content.behind(self.version.as_deref()) {
            Some(behind) => differs.push(behind),
            None => differs.extend(content.planned().shape.differences(&self.shape)),
        }
        let [seed, completed] = [&self.seed, &self.completed].map(|word| word.as_deref().unwrap_or_default());
        let seen = format!("{} {seed} {completed}", self.shape.fingerprint());
        Observed::Present { differs, version: self.version, fingerprint: hex::encode(Sha256::digest(seen)) }
    }
}

/// An open database file: one writer, several readers.
pub struct OpenDatabase {
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) writer: Writer,
    reads: Connections<Connection>,
}

impl OpenDatabase {
    /// Opens an existing file and migrates it.
    pub(crate) async fn new(
        file: &Path,
        max_bytes: Option<u64>,
        content: &Arc<Content>,
        readers: u32,
    ) -> Result<Self, Failure> {
        let (path, content) = (file.to_owned(), content.clone());
        let (catalogue, session) = blocking(move || {
            let connection = client::open(&path, max_bytes)?;
            let catalogue = Arc::new(client::migrate(&connection, &content.migrations)?);
            let opened = identity(&path).ok_or_else(|| {
                Failure::retryable(
                    "cannot_open",
                    "the database file was removed while it was opened; try again",
                )
            })?;
            let connection = Some(connection);
            Ok((catalogue.clone(), Session { file: path, max_bytes, catalogue, opened, connection }))
        })
        .await?;
        let path = file.to_owned();
        let reads = Connections::new(readers, "the database file", move || client::open_to_read(&path));
        Ok(Self { catalogue, writer: Writer::start(session), reads })
    }

    /// Runs queries on a connection that reads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        queries: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.reads.run(move |connection| queries(connection)).await
    }

    /// Writes the canary row again: it may have changed since the file was created, and a smoke test needs
    /// the current one.
    pub(crate) async fn write_canary(&self, content: &Content) -> Result<(), Failure> {
        let canary = content.canary()?;
        let gone = Work::Remove { tenant: canary.tenant.clone(), tag: canary.tag.clone() };
        self.writer.run(gone).await?;
        self.writer.run(Work::Ensure(Box::new(canary))).await.map(drop)
    }
}
