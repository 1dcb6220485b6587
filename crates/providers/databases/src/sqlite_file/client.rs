//! One tenant's file: reads its owner tag, creates it under a draft name, counts its rows. The caller holds
//! the resource's lock.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};
use tenantry_model::Failure;

use super::config::Config;
use super::warm_pool::WarmPool;
use crate::content::{Content, Ensure, seed_failure};
use crate::sqlite::RecordedTenant;
use crate::sqlite::catalogue;
use crate::sqlite::client::{self, failure};
use crate::sqlite::writer::{self, Work};
use crate::tables::quoted;
use tenantry_provider::lanes::blocking;
use tenantry_provider::place::Place;
use tenantry_provider::verbs::Spec;

/// Name of the file in the tenant's folder.
pub const FILE: &str = "tenant.db";
/// First bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Owner of the file under a tenant's name.
#[derive(Debug, PartialEq, Eq)]
pub enum FileOwnership {
    /// There is none.
    Absent,
    /// A file with another owner tag, or another kind of file.
    Foreign,
    /// The spec's tenant.
    Own(RecordedTenant),
}

/// Path of the file in a folder.
pub fn file(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Reads the owner tag of the tenant's file, and its state. Changes nothing.
pub async fn inspect(place: &Place, spec: &Spec) -> Result<FileOwnership, Failure> {
    let there = place.clone();
    let file = file(&place.folder());
    let begin = file.clone();
    let database = blocking(move || {
        if !there.exists()? {
            return Ok(None);
        }
        let mut head = [0; MAGIC.len()];
        match File::open(begin).and_then(|mut file| file.read_exact(&mut head)) {
            Ok(()) => Ok(Some(&head == MAGIC)),
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::NotADirectory => Ok(Some(false)),
                _ => Err(there.failure(&error)),
            },
        }
    });
    match database.await? {
        None => return Ok(FileOwnership::Absent),
        Some(false) => return Ok(FileOwnership::Foreign),
        Some(true) => {}
    }
    let mut connection = client::read_only(&file).connect().await.map_err(failure)?;
    let found = read(&mut connection, spec).await;
    connection.close().await.map_err(failure)?;
    found
}

async fn read(connection: &mut SqliteConnection, spec: &Spec) -> Result<FileOwnership, Failure> {
    let internal =
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('_tenants', '_migrations')";
    let tables: i64 = sqlx::query_scalar(internal).fetch_one(&mut *connection).await.map_err(failure)?;
    if tables != 2 {
        return Ok(FileOwnership::Foreign);
    }
    let rows = sqlx::query(
        "SELECT tenant_id, name, claim, seed, completed, (SELECT version FROM _migrations ORDER BY position DESC LIMIT 1) AS version
         FROM _tenants LIMIT 2",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(failure)?;
    let [row] = rows.as_slice() else { return Ok(FileOwnership::Foreign) };
    let owner: (&str, &str, &str) = (row.get("tenant_id"), row.get("name"), row.get("claim"));
    if owner != (&*spec.tenant.id.to_string(), &*spec.name, &*spec.claim) {
        return Ok(FileOwnership::Foreign);
    }
    Ok(FileOwnership::Own(RecordedTenant {
        completed: row.get("completed"),
        seed: row.get("seed"),
        version: row.get("version"),
        shape: catalogue::shape(connection).await?,
    }))
}

/// Creates the file under a draft name, from a warm database if there is one, and publishes it. False: the
/// name is taken.
pub async fn make(
    place: &Place,
    config: &Config,
    content: &Content,
    warm_pool: &WarmPool,
    work: Ensure,
) -> Result<bool, Failure> {
    let made = fill(place, config, content, warm_pool, work).await;
    let place = place.clone();
    let made = blocking(move || match made {
        Ok(()) => place.publish(),
        // The first failure is the cause; the next attempt cleans up as well.
        Err(failure) => place.sweep().and(Err(failure)),
    });
    let made = made.await;
    // Only now, so that filling the warm pool does not delay this tenant.
    warm_pool.request_fill();
    made
}

async fn fill(
    place: &Place,
    config: &Config,
    content: &Content,
    warm_pool: &WarmPool,
    work: Ensure,
) -> Result<(), Failure> {
    let file = match warm_pool.claim(place).await {
        Some(file) => file,
        None => {
            let place = place.clone();
            let draft = blocking(move || place.draft()).await?;
            create(&draft, config.max_bytes, content).await?
        }
    };
    let mut connection = client::private(&file, config.max_bytes).connect().await.map_err(failure)?;
    let work = [Work::Ensure(Box::new(work))];
    let written = writer::transaction(&mut connection, content.planned(), &work).await?;
    connection.close().await.map_err(failure)?;
    written.into_iter().try_for_each(|one| one.map(drop)).map_err(seed_failure)
}

/// Creates the file in a private folder, with all tables and no rows.
pub async fn create(folder: &Path, max_bytes: Option<u64>, content: &Content) -> Result<PathBuf, Failure> {
    let file = file(folder);
    let new = file.clone();
    blocking(move || client::create(&new)).await?;
    // Migrations need foreign keys off, as in `client::migrated`.
    let options = client::private(&file, max_bytes).foreign_keys(false);
    let mut connection = options.connect().await.map_err(failure)?;
    client::migrate(&mut connection, &content.migrations).await?;
    connection.close().await.map_err(failure)?;
    Ok(file)
}

/// Counts the rows of each of the tenant's tables.
pub async fn count(place: &Place) -> Result<Value, Failure> {
    let mut connection = client::read_only(&file(&place.folder())).connect().await.map_err(failure)?;
    let counts = count_all(&mut connection).await;
    connection.close().await.map_err(failure)?;
    counts.map(Value::Object).map_err(failure)
}

async fn count_all(connection: &mut SqliteConnection) -> sqlx::Result<Map<String, Value>> {
    let names = sqlx::query_scalar::<_, String>(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~' AND substr(name, 1, 1) <> '_' ORDER BY name",
    );
    let mut counts = Map::new();
    for name in names.fetch_all(&mut *connection).await? {
        let sql = format!("SELECT count(*) FROM {}", quoted(&name));
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await?;
        counts.insert(name, rows.into());
    }
    Ok(counts)
}
