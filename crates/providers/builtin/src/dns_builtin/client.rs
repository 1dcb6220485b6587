//! Stores DNS records as files, one per host, each written atomically. All functions block.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::Builder;
use tenantry_model::Failure;

use super::records::Entry;
use tenantry_provider::verbs::Ownership;

const DRAFT: &str = ".draft";
const SUFFIX: &str = ".json";

/// The folder of the record files.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Opens the folder, creates it if it is missing, and removes drafts of interrupted attempts.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let folder = Self(path.to_owned());
        folder.sweep().map_err(|error| folder.failure(&error))?;
        Ok(folder)
    }

    /// Reads all entries. Also returns the names of files that cannot be parsed.
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

    /// Reads the entry under a label and compares its owner tag.
    pub fn look(&self, label: &str, claim: &str) -> Result<Ownership<Entry>, Failure> {
        match self.read(label) {
            Ok(Some(entry)) if entry.claim == claim => Ok(Ownership::Own(entry)),
            // A damaged file has no readable owner tag, so it counts as foreign.
            Ok(_) => Ok(Ownership::Foreign),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Ownership::Absent),
            Err(error) => Err(self.failure(&error)),
        }
    }

    fn read(&self, label: &str) -> io::Result<Option<Entry>> {
        let bytes = fs::read(self.file(label))?;
        let entry: Option<Entry> = serde_json::from_slice(&bytes).ok();
        Ok(entry.filter(|entry| entry.label == label))
    }

    /// Writes an entry and returns when it is on the disk. `replace` overwrites an existing file; without it
    /// the result is false if the file exists.
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

    /// Deletes an entry; no error if it does not exist.
    pub fn remove(&self, label: &str) -> Result<(), Failure> {
        let removed = match fs::remove_file(self.file(label)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| self.sync()),
        };
        removed.map_err(|error| self.failure(&error))
    }

    /// Checks that the folder can be read and written.
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

    /// A retryable failure: disks and folders can become available again.
    fn failure(&self, error: &io::Error) -> Failure {
        let folder = self.0.display();
        Failure::retryable(
            "dns_folder",
            format!("the folder of DNS records {folder} cannot be used: {error}"),
        )
    }
}
