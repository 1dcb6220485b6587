//! The warm pool of SQLite files: databases that are created in advance, with all tables and no rows. A claim
//! is one rename. Only a complete database of the current migrations is claimed; others are discarded.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};
use tempfile::{Builder, TempDir};
use tenantry_model::Failure;

use super::client::{self, FILE};
use super::config::Config;
use crate::content::Content;
use crate::warm_task::{Fill, StopSignal, WarmTask};
use tenantry_provider::resource_folder::{self, ResourceFolder};
use tenantry_provider::resource_locks::blocking;

/// Folder of the warm databases, in the private folder.
const FOLDER: &str = "warm";
/// Prefix of the names of databases that are incomplete or being discarded.
const DRAFT: &str = ".draft";
/// Bytes of the recipe hash in a name.
const RECIPE: usize = 8;

/// The warm pool and the task that fills it.
pub struct WarmPool {
    pool: Arc<WarmFolder>,
    task: WarmTask,
}

/// The folder of warm databases. Each name has the recipe hash and the digest of the file, so neither an
/// outdated nor a damaged one is claimed.
struct WarmFolder {
    root: PathBuf,
    folder: PathBuf,
    size: usize,
    max_bytes: Option<u64>,
    content: Arc<Content>,
    /// Short hash of what a database is created from.
    recipe: String,
    /// Whether files left by an earlier process were verified.
    checked: AtomicBool,
}

impl WarmPool {
    /// Touches no file.
    pub fn new(config: &Config, content: Arc<Content>) -> Self {
        let pool = WarmFolder {
            root: config.folder.clone(),
            folder: resource_folder::private(&config.folder).join(FOLDER),
            size: config.warm.into(),
            max_bytes: config.max_bytes,
            recipe: recipe(&content),
            checked: AtomicBool::new(false),
            content,
        };
        Self { pool: Arc::new(pool), task: WarmTask::default() }
    }

    /// Starts the task and requests a first fill. A second call changes nothing.
    pub fn start(&self) {
        self.task.start(self.pool.clone());
    }

    /// Requests a fill; does nothing before `start`.
    pub fn request_fill(&self) {
        if self.pool.size > 0 {
            self.task.request();
        }
    }

    /// Returns when the fills requested so far are finished, whether they succeeded or not.
    pub async fn filled(&self) {
        self.task.finished().await;
    }

    /// Closes when the task has ended.
    #[cfg(test)]
    pub fn task_closed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.task.closed()
    }

    /// Claims a warm database as the draft of this tenant's folder and returns its file. None: there is none,
    /// or it cannot be claimed; the caller then creates one.
    pub async fn claim(&self, target: &ResourceFolder) -> Option<PathBuf> {
        let (pool, target) = (self.pool.clone(), target.clone());
        blocking(move || pool.claim(&target)).await.unwrap_or_else(|failure| {
            tracing::warn!(%failure, "warm claim failed; the database is created on demand");
            None
        })
    }
}

#[async_trait]
impl Fill for WarmFolder {
    async fn fill(self: Arc<Self>, stop: &StopSignal) -> Result<(), Failure> {
        let pool = self.clone();
        let lock = blocking(move || pool.lock().map_err(|error| pool.failure(&error)));
        let Some(_lock) = lock.await? else { return Ok(()) };
        while !stop.is_set() {
            let pool = self.clone();
            if !blocking(move || pool.create_missing()).await? {
                break;
            }
        }
        Ok(())
    }
}

impl WarmFolder {
    fn claim(&self, target: &ResourceFolder) -> Result<Option<PathBuf>, Failure> {
        if self.size == 0 {
            return Ok(None);
        }
        for name in self.ready().map_err(|error| target.failure(&error))? {
            // None: another claim was faster.
            let Some(draft) = target.adopt(&self.folder.join(&name))? else { continue };
            if self.is_whole(&draft, &name) {
                return Ok(Some(client::file(&draft)));
            }
            tracing::warn!(name, "a damaged warm database was discarded");
            target.sweep()?;
        }
        Ok(None)
    }

    fn name(&self, digest: &str) -> String {
        format!("{}.{digest}", self.recipe)
    }

    /// Names of the databases that can be claimed.
    fn ready(&self) -> io::Result<Vec<String>> {
        let mut names = resource_folder::names(&self.folder)?;
        names.retain(|name| self.is_ready(name));
        Ok(names)
    }

    fn is_ready(&self, name: &str) -> bool {
        let folder = || fs::symlink_metadata(self.folder.join(name)).is_ok_and(|meta| meta.is_dir());
        name.starts_with(&self.name("")) && folder()
    }

    /// Whether the file in a folder matches the digest in its name.
    fn is_whole(&self, folder: &Path, name: &str) -> bool {
        digest(folder).is_ok_and(|digest| name == self.name(&digest))
    }

    /// Locks the folder for filling and discards incomplete, outdated, damaged and surplus databases. One
    /// process holds the lock at a time; it ends with the process. None: another process holds it.
    fn lock(&self) -> io::Result<Option<File>> {
        if self.size == 0 && !self.folder.exists() {
            return Ok(None);
        }
        resource_folder::private_folder(&self.root)?;
        DirBuilder::new().mode(0o700).recursive(true).create(&self.folder)?;
        let lock = File::open(&self.folder)?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => {}
        }
        // After a power cut a claimed database with a tenant's rows can reappear here: verify it now, not
        // when it is claimed.
        let checked = self.checked.load(Ordering::Relaxed);
        let mut kept = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if kept < self.size && self.is_ready(&name) && (checked || self.is_whole(&entry.path(), &name)) {
                kept += 1;
            } else {
                self.discard(&name)?;
            }
        }
        self.checked.store(true, Ordering::Relaxed);
        Ok(Some(lock))
    }

    /// Discards one. Renames it first, so that it cannot be claimed meanwhile.
    fn discard(&self, name: &str) -> io::Result<()> {
        let gone = self.folder.join(format!("{DRAFT}-{name}"));
        let removed = fs::rename(self.folder.join(name), &gone)
            .and_then(|()| if gone.is_dir() { fs::remove_dir_all(&gone) } else { fs::remove_file(&gone) });
        match removed {
            // It was claimed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Creates one. False: none is missing.
    fn create_missing(&self) -> Result<bool, Failure> {
        let failure = |error| self.failure(&error);
        if self.ready().map_err(failure)?.len() >= self.size {
            return Ok(false);
        }
        let private = fs::Permissions::from_mode(0o700);
        let draft = Builder::new().prefix(DRAFT).permissions(private).tempdir_in(&self.folder);
        let draft = draft.map_err(failure)?;
        client::create(draft.path(), self.max_bytes, &self.content)?;
        self.publish(draft).map_err(failure)?;
        Ok(true)
    }

    /// Makes it claimable, after flushing it to the disk.
    fn publish(&self, draft: TempDir) -> io::Result<()> {
        resource_folder::sync(draft.path())?;
        let ready = self.folder.join(self.name(&digest(draft.path())?));
        renameat_with(CWD, draft.path(), CWD, &ready, RenameFlags::NOREPLACE)?;
        // The draft was renamed, so there is nothing to clean up.
        let _ = draft.keep();
        File::open(&self.folder)?.sync_all()
    }

    fn failure(&self, error: &io::Error) -> Failure {
        resource_folder::failure(&self.folder, error)
    }
}

/// Short hash of a new database's tables and migrations.
fn recipe(content: &Content) -> String {
    let mut hash = Sha256::new_with_prefix(content.planned().shape.fingerprint());
    for migration in &content.migrations {
        hash.update(format!(" {} {}", migration.key(), migration.checksum));
    }
    hex::encode(hash.finalize().get(..RECIPE).unwrap_or_default())
}

/// SHA-256 of the one file in the folder. A second file, such as a journal, could change the content.
fn digest(folder: &Path) -> io::Result<String> {
    if fs::read_dir(folder)?.count() != 1 {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut file = BufReader::with_capacity(64 * 1024, File::open(folder.join(FILE))?);
    let mut hash = Sha256::new();
    loop {
        let bytes = file.fill_buf()?;
        if bytes.is_empty() {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(bytes);
        let read = bytes.len();
        file.consume(read);
    }
}
