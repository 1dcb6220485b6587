//! What the database providers on SQLite share: an open file, its migrations and seeds, its one writer, and one tenant's
//! rows in it. A provider decides which file a tenant's rows are in: one for all, or one of its own.

pub mod catalogue;
pub mod client;
pub mod content;
pub mod rows;
pub mod writer;

use std::path::Path;
use std::sync::Arc;

use sqlx::sqlite::SqlitePoolOptions;
use tenantry_model::Failure;

use crate::migrations::Migration;
use catalogue::Catalogue;
use writer::Writer;

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
}
