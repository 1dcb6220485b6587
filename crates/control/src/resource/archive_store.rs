//! The archive store: files in a folder, each encrypted under a key of its tenant, so that destroying that key destroys them. A
//! file has its final name only once all of its bytes are written.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use tempfile::Builder;
use tenantry_model::{Failure, Timestamp};
use tenantry_provider::Key;
use tenantry_provider::objects::Body;
use tenantry_provider::resource_folder;
use tenantry_provider::resource_locks::blocking;
use tenantry_provider::sealed_file::stream::{self, Stored};
use tokio::io::DuplexStream;
use tokio::task::JoinSet;

/// Suffix of files that are still being written.
const PART: &str = ".part";
/// Age from which a file without an archive counts as left by a process that died.
const FORGOTTEN: Duration = Duration::from_secs(86_400);
/// Buffer between the writer and the encryption, in bytes.
const CHUNK: usize = 256 << 10;

/// A folder of archives.
#[derive(Clone, Debug)]
pub struct ArchiveStore {
    folder: PathBuf,
}

impl ArchiveStore {
    /// A store in this folder, which is created when it is first needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Stores what `fill` writes and replaces a file of the same name. If either side fails or is dropped, nothing is stored.
    /// Parts of interrupted attempts are removed.
    pub async fn put<T>(
        &self,
        name: &str,
        key: &Key,
        fill: impl AsyncFnOnce(DuplexStream) -> Result<T, Failure>,
    ) -> Result<(Stored, T), Failure> {
        let (folder, begins) = (self.folder.clone(), format!("{name}{PART}"));
        let part = blocking(move || {
            draft(&folder, &begins).map_err(|error| resource_folder::failure(&folder, &error))
        });
        let (file, path) = part.await?.into_parts();
        let (into, from) = tokio::io::duplex(CHUNK);
        let file = tokio::fs::File::from_std(file);
        let (folder, key, of) = (self.folder.clone(), key.clone(), name.to_owned());
        // Compression and encryption run on different threads. Dropping the set ends the task.
        let mut storing = JoinSet::new();
        storing.spawn(async move { stream::store(file, &folder, (&key, &of), Box::pin(from), None).await });
        let (stored, filled) = tokio::join!(storing.join_next(), fill(into));
        // If the disk is full, `fill` only sees a closed pipe: the storing side has the cause.
        let broken_off = || Failure::unknown("broken_off", "storing the archive was interrupted");
        let stored = stored.and_then(Result::ok).ok_or_else(broken_off)??;
        let filled = filled?;
        let (folder, whole) = (self.folder.clone(), self.folder.join(name));
        let named = blocking(move || {
            let named = path.persist(&whole).map_err(|refused| refused.error);
            named
                .and_then(|()| File::open(&folder)?.sync_all())
                .map_err(|error| resource_folder::failure(&folder, &error))
        });
        named.await?;
        Ok((stored, filled))
    }

    /// Reads `length` bytes from `first` on, of an archive of `size` bytes; none if there is no such archive.
    pub async fn open(
        &self,
        name: &str,
        key: &Key,
        size: u64,
        (first, length): (u64, u64),
    ) -> Result<Option<Body>, Failure> {
        let failed = |error: std::io::Error| match stream::is_damage(&error) {
            true => Failure::fatal("corrupt", "the archive is damaged on the disk"),
            false => resource_folder::failure(&self.folder, &error),
        };
        let file = match tokio::fs::File::open(self.folder.join(name)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let body = stream::read(file, (key, name.to_owned()), size, (first, length)).await;
        body.map(Some).map_err(failed)
    }

    /// Names of files, complete or not, that were last written more than a day ago.
    pub async fn old(&self, now: Timestamp) -> Result<Vec<String>, Failure> {
        let folder = self.folder.clone();
        blocking(move || old(&folder, now).map_err(|error| resource_folder::failure(&folder, &error))).await
    }

    /// Removes an archive and its parts; false if there was none.
    pub async fn remove(&self, name: &str) -> Result<bool, Failure> {
        let (folder, name) = (self.folder.clone(), name.to_owned());
        blocking(move || remove(&folder, &name).map_err(|error| resource_folder::failure(&folder, &error)))
            .await
    }
}

fn draft(folder: &Path, begins: &str) -> std::io::Result<tempfile::NamedTempFile> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    sweep(folder, begins)?;
    Builder::new().prefix(begins).tempfile_in(folder)
}

fn remove(folder: &Path, name: &str) -> std::io::Result<bool> {
    if !folder.is_dir() {
        return Ok(false);
    }
    sweep(folder, &format!("{name}{PART}"))?;
    let there = match fs::remove_file(folder.join(name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        removed => removed.map(|()| true)?,
    };
    File::open(folder)?.sync_all()?;
    Ok(there)
}

fn old(folder: &Path, now: Timestamp) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let written = entry.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = Timestamp::from_micros(i64::try_from(written.as_micros()).unwrap_or(i64::MAX));
        if now.since(written) > FORGOTTEN {
            found.extend(entry.file_name().into_string());
        }
    }
    Ok(found)
}

fn sweep(folder: &Path, begins: &str) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(begins) {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
