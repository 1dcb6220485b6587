//! One tenant's file: reads its owner tag, creates it under a draft name, counts its rows. The caller holds
//! the resource's lock.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use serde_json::{Map, Value};
use tenantry_model::Failure;

use super::warm_pool::WarmPool;
use crate::content::{Content, Ensure, seed_failure};
use crate::sqlite::RecordedTenant;
use crate::sqlite::catalogue;
use crate::sqlite::client::{self, query};
use crate::sqlite::writer::{self, Work};
use crate::tables::quoted;
use tenantry_provider::resource_folder::ResourceFolder;
use tenantry_provider::resource_locks::blocking;
use tenantry_provider::verbs::{Ownership, Spec};

/// Name of the file in the tenant's folder.
pub const FILE: &str = "tenant.db";
/// First bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Path of the file in a folder.
pub fn file(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Reads the owner tag of the tenant's file, and its state. Changes nothing.
pub async fn inspect(target: &ResourceFolder, spec: &Spec) -> Result<Ownership<RecordedTenant>, Failure> {
    let (target, spec) = (target.clone(), spec.clone());
    blocking(move || {
        if !target.exists()? {
            return Ok(Ownership::Absent);
        }
        let (file, mut head) = (file(&target.path()), [0; MAGIC.len()]);
        match File::open(&file).and_then(|mut file| file.read_exact(&mut head)) {
            Ok(()) if &head == MAGIC => read(&client::open_to_read(&file)?, &spec),
            Ok(()) => Ok(Ownership::Foreign),
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::NotADirectory => {
                    Ok(Ownership::Foreign)
                }
                _ => Err(target.failure(&error)),
            },
        }
    })
    .await
}

fn read(connection: &Connection, spec: &Spec) -> Result<Ownership<RecordedTenant>, Failure> {
    let internal = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name IN ('_tenants', '_migrations')";
    if query(connection, internal, [], |_| Ok(()))?.len() != 2 {
        return Ok(Ownership::Foreign);
    }
    let tenants: Vec<(bool, _)> = query(
        connection,
        "SELECT tenant_id = ?1 AND name = ?2 AND claim = ?3, completed, seed, (SELECT version FROM _migrations ORDER BY position DESC LIMIT 1)
         FROM _tenants LIMIT 2",
        [&spec.tenant.id.to_string(), &spec.name, &spec.claim],
        |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?))),
    )?;
    let [(true, recorded)] = tenants.as_slice() else { return Ok(Ownership::Foreign) };
    let (completed, seed, version) = recorded.clone();
    let shape = catalogue::shape(connection)?;
    Ok(Ownership::Own(RecordedTenant { completed, seed, version, shape }))
}

/// Creates the file under a draft name, from a warm database if there is one, and publishes it. False: the
/// name is taken.
pub async fn make(
    target: &ResourceFolder,
    max_bytes: Option<u64>,
    content: &Arc<Content>,
    warm_pool: &WarmPool,
    work: Ensure,
) -> Result<bool, Failure> {
    let claimed = warm_pool.claim(target).await;
    let (target, content) = (target.clone(), content.clone());
    let made = blocking(move || match fill(&target, claimed, max_bytes, &content, work) {
        Ok(()) => target.publish(),
        // The first failure is the cause; the next attempt cleans up as well.
        Err(failure) => target.sweep().and(Err(failure)),
    });
    let made = made.await;
    // Only now, so that filling the warm pool does not delay this tenant.
    warm_pool.request_fill();
    made
}

fn fill(
    target: &ResourceFolder,
    claimed: Option<PathBuf>,
    max_bytes: Option<u64>,
    content: &Content,
    work: Ensure,
) -> Result<(), Failure> {
    let file = match claimed {
        Some(file) => file,
        None => create(&target.draft()?, max_bytes, content)?,
    };
    let connection = client::open_draft(&file, max_bytes)?;
    let work = [Work::Ensure(Box::new(work))];
    let written = writer::transaction(&connection, content.planned(), &work)?;
    written.into_iter().try_for_each(|one| one.map(drop)).map_err(seed_failure)
}

/// Creates the file in a private folder, with all tables and no rows.
pub fn create(folder: &Path, max_bytes: Option<u64>, content: &Content) -> Result<PathBuf, Failure> {
    let file = file(folder);
    client::create(&file)?;
    client::migrate(&client::open_draft(&file, max_bytes)?, &content.migrations)?;
    Ok(file)
}

/// Counts the rows of each of the tenant's tables.
pub fn count(file: &Path) -> Result<Value, Failure> {
    let connection = client::open_to_read(file)?;
    let names: Vec<String> = query(
        &connection,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~' AND substr(name, 1, 1) <> '_' ORDER BY name",
        [],
        |row| row.get(0),
    )?;
    let mut counts = Map::new();
    for name in names {
        let sql = format!("SELECT count(*) FROM {}", quoted(&name));
        let rows = query(&connection, &sql, [], |row| row.get::<_, i64>(0))?;
        counts.insert(name, rows.into_iter().sum::<i64>().into());
    }
    Ok(Value::Object(counts))
}
