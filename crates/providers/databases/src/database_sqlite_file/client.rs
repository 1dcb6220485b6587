//! One tenant's file: whose it is, making it aside, counting what is in it. Works on a place that the caller has the turn
//! for.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};
use tenantry_model::Failure;

use super::config::Config;
use super::warm::Warm;
use crate::content::{Content, Ensure, refused};
use crate::database_sqlite::Seen;
use crate::database_sqlite::catalogue;
use crate::database_sqlite::client::{self, failure};
use crate::database_sqlite::writer::{self, Work};
use crate::tables::quoted;
use tenantry_provider::lanes::blocking;
use tenantry_provider::place::Place;
use tenantry_provider::verbs::Spec;

/// The file in the tenant's folder.
pub const FILE: &str = "tenant.db";
/// How every SQLite file begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What is there under a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Something that is somebody else's.
    Foreign,
    /// The spec's own.
    Ours(Seen),
}

/// The file in a folder.
pub fn file(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// What is there, without changing it.
pub async fn look(place: &Place, spec: &Spec) -> Result<Found, Failure> {
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
        None => return Ok(Found::Nothing),
        Some(false) => return Ok(Found::Foreign),
        Some(true) => {}
    }
    let mut connection = client::looking(&file).connect().await.map_err(failure)?;
    let found = read(&mut connection, spec).await;
    connection.close().await.map_err(failure)?;
    found
}

async fn read(connection: &mut SqliteConnection, spec: &Spec) -> Result<Found, Failure> {
    let ours =
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('_tenants', '_migrations')";
    let tables: i64 = sqlx::query_scalar(ours).fetch_one(&mut *connection).await.map_err(failure)?;
    if tables != 2 {
        return Ok(Found::Foreign);
    }
    let rows = sqlx::query(
        "SELECT tenant_id, name, claim, seed, completed, (SELECT version FROM _migrations ORDER BY position DESC LIMIT 1) AS version
         FROM _tenants LIMIT 2",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(failure)?;
    let [row] = rows.as_slice() else { return Ok(Found::Foreign) };
    let owner: (&str, &str, &str) = (row.get("tenant_id"), row.get("name"), row.get("claim"));
    if owner != (&*spec.tenant.id.to_string(), &*spec.name, &*spec.claim) {
        return Ok(Found::Foreign);
    }
    Ok(Found::Ours(Seen {
        completed: row.get("completed"),
        seed: row.get("seed"),
        version: row.get("version"),
        shape: catalogue::shape(connection).await?,
    }))
}

/// Makes the whole file aside, out of one that is ready if there is one, and gives it its name. False: something has the
/// name.
pub async fn make(
    place: &Place,
    config: &Config,
    content: &Content,
    warm: &Warm,
    work: Ensure,
) -> Result<bool, Failure> {
    let made = fill(place, config, content, warm, work).await;
    let place = place.clone();
    let made = blocking(move || match made {
        Ok(()) => place.publish(),
        // The failure says more than what sweeping could add; the next attempt sweeps too.
        Err(failure) => place.sweep().and(Err(failure)),
    });
    let made = made.await;
    // Not before, so that what is made for later is not in the way of what is wanted now.
    warm.ask();
    made
}

async fn fill(
    place: &Place,
    config: &Config,
    content: &Content,
    warm: &Warm,
    work: Ensure,
) -> Result<(), Failure> {
    let file = match warm.claim(place).await {
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
    written.into_iter().try_for_each(|one| one.map(drop)).map_err(refused)
}

/// Makes the file in a folder that nobody else sees, with all its tables and nobody's rows.
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

/// How many rows each table of the tenant's has.
pub async fn count(place: &Place) -> Result<Value, Failure> {
    let mut connection = client::looking(&file(&place.folder())).connect().await.map_err(failure)?;
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
