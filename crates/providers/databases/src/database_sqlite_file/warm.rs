//! Databases that are ready before anybody wants one. A claim is one rename, so a ready database becomes one tenant's or
//! stays nobody's. What is claimed is whole and of this release, or thrown away. Filling up never makes a caller wait.

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
use crate::refill::{Refill, Stock, Stop};
use tenantry_provider::lanes::blocking;
use tenantry_provider::place::{self, Place};

/// Folder of the ready databases, in the private folder.
const FOLDER: &str = "warm";
/// How the name begins of what is not ready yet, or not any more.
const DRAFT: &str = ".draft";
/// Bytes of the recipe that stand in a name.
const RECIPE: usize = 8;

/// The ready databases, and the way to the task that makes them.
pub struct Warm {
    stock: Arc<Folder>,
    refill: Refill,
}

/// The folder of ready databases. Each is named by its recipe and by the digest of its file, so that neither an older
/// one nor a damaged one is taken for a good one.
struct Folder {
    root: PathBuf,
    folder: PathBuf,
    size: usize,
    max_bytes: Option<u64>,
    content: Arc<Content>,
    /// What a database is made of: another one for other migrations.
    recipe: String,
    /// Whether the files that an earlier process left were read.
    checked: AtomicBool,
}

impl Warm {
    /// Touches no file.
    pub fn new(config: &Config, content: Arc<Content>) -> Self {
        let stock = Folder {
            root: config.folder.clone(),
            folder: place::private(&config.folder).join(FOLDER),
            size: config.warm.into(),
            max_bytes: config.max_bytes,
            recipe: recipe(&content),
            checked: AtomicBool::new(false),
            content,
        };
        Self { stock: Arc::new(stock), refill: Refill::default() }
    }

    /// Makes what is missing, now and whenever it is asked for. A second call changes nothing.
    pub fn start(&self) {
        self.refill.start(self.stock.clone());
    }

    /// Lets the task look for what is missing; without one, nothing happens.
    pub fn ask(&self) {
        if self.stock.size > 0 {
            self.refill.ask();
        }
    }

    /// Returns when everything is made that was asked for by now, or could not be.
    pub async fn refilled(&self) {
        self.refill.refilled().await;
    }

    /// Ends with the task.
    #[cfg(test)]
    pub fn task(&self) -> tokio::sync::watch::Receiver<u64> {
        self.refill.task()
    }

    /// Makes a ready database the draft of this place: its file. None: there is none, or none that can be had. Whoever
    /// asked makes one then, and meets what is wrong, if anything is.
    pub async fn claim(&self, place: &Place) -> Option<PathBuf> {
        let (stock, place) = (self.stock.clone(), place.clone());
        blocking(move || stock.claim(&place)).await.unwrap_or_else(|failure| {
            tracing::warn!(%failure, "the ready databases cannot be used; one is made");
            None
        })
    }
}

#[async_trait]
impl Stock for Folder {
    async fn fill(self: Arc<Self>, stop: &Stop) -> Result<(), Failure> {
        let stock = self.clone();
        let turn = blocking(move || stock.turn().map_err(|error| stock.failure(&error)));
        let Some(_turn) = turn.await? else { return Ok(()) };
        while !stop.is_told() {
            let stock = self.clone();
            let ready = blocking(move || stock.ready().map_err(|error| stock.failure(&error))).await?;
            if ready.len() >= self.size {
                break;
            }
            self.add().await?;
        }
        Ok(())
    }
}

impl Folder {
    fn claim(&self, place: &Place) -> Result<Option<PathBuf>, Failure> {
        if self.size == 0 {
            return Ok(None);
        }
        for name in self.ready().map_err(|error| place.failure(&error))? {
            // Otherwise somebody else was faster.
            let Some(draft) = place.adopt(&self.folder.join(&name))? else { continue };
            if self.is_whole(&draft, &name) {
                return Ok(Some(client::file(&draft)));
            }
            tracing::warn!(name, "a ready database is damaged and was thrown away");
            place.sweep()?;
        }
        Ok(None)
    }

    fn name(&self, digest: &str) -> String {
        format!("{}.{digest}", self.recipe)
    }

    /// Names of those that can be claimed.
    fn ready(&self) -> io::Result<Vec<String>> {
        let mut names = place::names(&self.folder)?;
        names.retain(|name| self.is_ready(name));
        Ok(names)
    }

    fn is_ready(&self, name: &str) -> bool {
        let folder = || fs::symlink_metadata(self.folder.join(name)).is_ok_and(|meta| meta.is_dir());
        name.starts_with(&self.name("")) && folder()
    }

    /// Whether a folder of this name holds what was put there.
    fn is_whole(&self, folder: &Path, name: &str) -> bool {
        digest(folder).is_ok_and(|digest| name == self.name(&digest))
    }

    /// The right to fill it, which one process has at a time and loses when it dies, so that whatever is half done now is
    /// nobody's and goes, together with what is too old, damaged or too much. None: somebody else has it.
    fn turn(&self) -> io::Result<Option<File>> {
        if self.size == 0 && !self.folder.exists() {
            return Ok(None);
        }
        place::private_folder(&self.root)?;
        DirBuilder::new().mode(0o700).recursive(true).create(&self.folder)?;
        let turn = File::open(&self.folder)?;
        match turn.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => {}
        }
        // After a power cut a tenant's draft can be here again, with rows of its own: it goes now, not when it is claimed.
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
        Ok(Some(turn))
    }

    /// Takes one away. It gets another name first, so that nobody can claim what is left of it.
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

    /// Makes one.
    async fn add(self: &Arc<Self>) -> Result<(), Failure> {
        let stock = self.clone();
        let draft = blocking(move || {
            let private = fs::Permissions::from_mode(0o700);
            let draft = Builder::new().prefix(DRAFT).permissions(private).tempdir_in(&stock.folder);
            draft.map_err(|error| stock.failure(&error))
        })
        .await?;
        client::create(draft.path(), self.max_bytes, &self.content).await?;
        let stock = self.clone();
        blocking(move || stock.publish(draft).map_err(|error| stock.failure(&error))).await
    }

    /// Lets it be claimed, once all of it is on the disk.
    fn publish(&self, draft: TempDir) -> io::Result<()> {
        place::sync(draft.path())?;
        let ready = self.folder.join(self.name(&digest(draft.path())?));
        renameat_with(CWD, draft.path(), CWD, &ready, RenameFlags::NOREPLACE)?;
        // What it was is not there any more, so there is nothing to clean up.
        let _ = draft.keep();
        File::open(&self.folder)?.sync_all()
    }

    fn failure(&self, error: &io::Error) -> Failure {
        place::failure(&self.folder, error)
    }
}

/// What a new database is made of, in short.
fn recipe(content: &Content) -> String {
    let mut hash = Sha256::new_with_prefix(content.planned().shape.fingerprint());
    for migration in &content.migrations {
        hash.update(format!(" {} {}", migration.key(), migration.checksum));
    }
    hex::encode(hash.finalize().get(..RECIPE).unwrap_or_default())
}

/// SHA-256 of the one file in the folder. A second one, such as a journal, would change what the first one says.
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
