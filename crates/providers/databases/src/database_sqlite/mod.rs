//! What the database providers on SQLite share: an open file, its migrations and seeds, its one writer, and one tenant's
//! rows in it. A provider decides which file a tenant's rows are in: one for all, or one of its own.

pub mod catalogue;
pub mod client;
pub mod portable;
pub mod rows;
pub(crate) mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use sqlx::sqlite::SqlitePoolOptions;
use tenantry_model::Failure;

use crate::content::Content;
use crate::migrations::{self, Dialect, Migration};
use crate::shape::Shape;
use crate::tables::Catalogue;
use tenantry_provider::files::Files;
use tenantry_provider::verbs::Observed;
use writer::{Work, Writer};

/// What goes into the files: the migrations are tried in memory, so that their faults are found, and what they make is
/// known, before a file is touched.
pub(crate) async fn content(
    set: &str,
    migrations: &Option<PathBuf>,
    seeds: &Option<PathBuf>,
) -> Result<Content, Failure> {
    let migrations = migrations::load(&Files::migrations(migrations.as_deref()), set, Dialect::Sqlite)?;
    let planned = client::rehearse(&migrations).await?;
    Content::load(set, migrations, Some(planned), seeds.as_deref(), writer::insert_statement)
}

/// What is seen of a tenant in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// When all of its rows were written.
    pub completed: Option<String>,
    /// The seed that it began with.
    pub seed: Option<String>,
    /// The last migration.
    pub version: Option<String>,
    /// The file's schema.
    pub shape: Shape,
}

impl Seen {
    /// The same, compared with what the migrations make. `differs` is what else is not as it should be.
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

/// A database file at work.
pub struct Open {
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) writer: Writer,
    pub(crate) reads: sqlx::SqlitePool,
}

impl Open {
    /// Opens a file that is there, and brings its schema up to date.
    pub(crate) async fn new(
        file: &Path,
        max_bytes: Option<u64>,
        migrations: &[Migration],
        readers: u32,
    ) -> Result<Self, Failure> {
        let catalogue = Arc::new(client::migrated(file, max_bytes, migrations).await?);
        let options = client::options(file, max_bytes);
        let writer = Writer::start(options.clone(), catalogue.clone()).await?;
        let reads = SqlitePoolOptions::new()
            .max_connections(readers)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self { catalogue, writer, reads })
    }

    /// Makes the canary anew: its row may be another one than it was when the file was made, and a smoke test that looks
    /// for a row that is not there would prove nothing.
    pub(crate) async fn stand_canary(&self, content: &Content) -> Result<(), Failure> {
        let canary = content.canary()?;
        let gone = Work::Remove { tenant: canary.tenant.clone(), claim: canary.claim.clone() };
        self.writer.run(gone).await?;
        self.writer.run(Work::Ensure(Box::new(canary))).await.map(drop)
    }
}
