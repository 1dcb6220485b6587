//! The records as files: one host, one file, there completely or not at all. Knows nothing of the network. All of it
//! blocks; the caller runs it where that is allowed.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::Builder;
use tenantry_model::Failure;

use super::records::Entry;

const DRAFT: &str = ".draft";
const SUFFIX: &str = ".json";

/// What is there under a label.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// An entry with this claim.
    Ours(Entry),
    /// Anything else.
    Foreign,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Opens the folder, makes it if it is missing, and takes away what an attempt that was cut off has left.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let folder = Self(path.to_owned());
        folder.sweep().map_err(|error| folder.failure(&error))?;
        Ok(folder)
    }

    /// Every entry that can be read, and the names of the files that cannot.
    pub fn load(&self) -> Result<(Vec<Entry>, Vec<String>), Failure> {
        let (mut entries, mut damaged) = (Vec::new(), Vec::new());
        for file in fs::read_dir(&self.0).map_err(|error| self.failure(&error))? {
            let file = file.map_err(|error| self.failure(&error))?.file_name();
            let Some(file) = file.to_str() else { continue };
            let Some(label) = file.strip_suffix(SUFFIX) else { continue };
            match self.read(label).map_err(|error| self.failure(&error))? {
                Some(entry) => entries.push(entry),
                None => damaged.push(file.to_owned()),
            }
        }
        Ok((entries, damaged))
    }

    /// What is there, by the owner mark.
    pub fn look(&self, label: &str, claim: &str) -> Result<Found, Failure> {
        match self.read(label) {
            Ok(Some(entry)) if entry.claim == claim => Ok(Found::Ours(entry)),
            // Whose a damaged file is, nobody can tell.
            Ok(_) => Ok(Found::Foreign),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(self.failure(&error)),
        }
    }

    fn read(&self, label: &str) -> io::Result<Option<Entry>> {
        let bytes = fs::read(self.file(label))?;
        let entry: Option<Entry> = serde_json::from_slice(&bytes).ok();
        Ok(entry.filter(|entry| entry.label == label))
    }

    /// Puts the entry there and returns when it is on the disk. `replace`: an entry of the same owner is there. False:
    /// something is there that was not expected.
    pub fn put(&self, entry: &Entry, replace: bool) -> Result<bool, Failure> {
        self.try_put(entry, replace).map_err(|error| self.failure(&error))
    }

    fn try_put(&self, entry: &Entry, replace: bool) -> io::Result<bool> {
        let mut draft = Builder::new().prefix(".").suffix(DRAFT).tempfile_in(&self.0)?;
        draft.write_all(&serde_json::to_vec_pretty(entry)?)?;
        draft.as_file().sync_all()?;
        let file = self.file(&entry.label);
        let done = if replace { draft.persist(file) } else { draft.persist_noclobber(file) };
        match done {
            Ok(_) => self.sync().map(|()| true),
            Err(refused) if refused.error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(refused) => Err(refused.error),
        }
    }

    /// Removes an entry.
    pub fn remove(&self, label: &str) -> Result<(), Failure> {
        let removed = match fs::remove_file(self.file(label)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| self.sync()),
        };
        removed.map_err(|error| self.failure(&error))
    }

    /// Whether the folder can be read and written.
    pub fn probe(&self) -> Result<(), Failure> {
        let written = Builder::new().prefix(".").suffix(DRAFT).tempfile_in(&self.0);
        written
            .and_then(|mut draft| draft.write_all(b"probe"))
            .and_then(|()| fs::read_dir(&self.0).map(drop))
            .map_err(|error| self.failure(&error))
    }

    fn sweep(&self) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        for file in fs::read_dir(&self.0)? {
            let file = file?;
            if file.file_name().to_string_lossy().ends_with(DRAFT) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn file(&self, label: &str) -> PathBuf {
        self.0.join(format!("{label}{SUFFIX}"))
    }

    /// The disk and the folder can come back: all of it is worth another attempt.
    fn failure(&self, error: &io::Error) -> Failure {
        let folder = self.0.display();
        Failure::retryable(
            "dns_folder",
            format!("the folder of DNS records {folder} cannot be used: {error}"),
        )
    }
}
