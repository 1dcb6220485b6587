//! Stores certificates as files: one private folder each, created together with its owner tag; every file is
//! written atomically. All functions block.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use tempfile::Builder;
use tenantry_model::{Failure, Timestamp};

use super::authority::{Authority, clock, is_there};
use super::facts::Facts;
use tenantry_provider::verbs::Ownership;

/// File of the certificate.
pub const CERTIFICATE: &str = "cert.pem";
/// File of the private key, readable by its owner alone.
pub const KEY: &str = "key.pem";
/// File of the authority's certificate.
pub const CHAIN: &str = "chain.pem";
/// File of the owner tag.
const OWNER: &str = "owner";
/// Folder that holds one folder per certificate.
const FOLDER: &str = "certificates";
const DRAFT: &str = ".draft";
/// Mode of folders that only their owner may use.
const PRIVATE: u32 = 0o700;

/// Desired state of a certificate.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Name of its folder.
    pub name: String,
    /// Owner tag.
    pub claim: String,
    /// Subject alternative names.
    pub names: Vec<String>,
    /// Lifetime in days.
    pub days: u32,
}

/// Observed state of a certificate.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing has the name.
    Absent,
    /// An object with another owner tag has the name.
    Foreign,
    /// A folder with this owner tag exists.
    Present {
        /// Whether the certificate is complete, correct and not due.
        healthy: bool,
        /// Fields of the certificate, if its file is readable.
        facts: Option<Box<Facts>>,
    },
}

/// The certificates' folders and the authority that signs.
pub struct Cabinet {
    folder: PathBuf,
    authority: Authority,
    renew_days: Option<u32>,
}

impl Cabinet {
    /// Opens the folder, creates it if it is missing, and removes unfinished drafts.
    pub fn open(folder: &Path, authority: Authority, renew_days: Option<u32>) -> Result<Self, Failure> {
        let folder = folder.join(FOLDER);
        let opened = private_folder(&folder).and_then(|()| sweep(&folder));
        opened.map_err(|error| failure(&folder, &error))?;
        Ok(Self { folder, authority, renew_days })
    }

    /// Folder of a certificate's files.
    pub fn folder_of(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Creates the key and the certificate, or replaces what is missing, wrong or due, and returns the
    /// certificate's fields. An error `name_taken` if the name has another owner tag.
    pub fn make(&self, wanted: &Wanted, now: Timestamp) -> Result<Facts, Failure> {
        let folder = self.folder_of(&wanted.name);
        let fails = |error: io::Error| failure(&folder, &error);
        if self.look(wanted).map_err(fails)? == Ownership::Absent {
            match make_folder(&self.folder, &folder, &[(OWNER, wanted.claim.clone())]) {
                Err(error) if is_there(&error) => {}
                done => done.map_err(fails)?,
            }
        }
        if self.look(wanted).map_err(fails)? != Ownership::Own(()) {
            let why = "the name is taken by a certificate with another owner tag; nothing was changed";
            return Err(Failure::fatal("name_taken", why));
        }
        sweep(&folder).map_err(fails)?;
        let key = self.key(&folder)?;
        if let Some(facts) = self.current(&folder, wanted, &key, now).map_err(fails)? {
            return Ok(facts);
        }
        let pem = self.authority.issue(&wanted.names, &key, now, wanted.days)?;
        write(&folder, CHAIN, &self.authority.pem).map_err(fails)?;
        write(&folder, CERTIFICATE, &pem).map_err(fails)?;
        Facts::read(&pem).ok_or_else(|| Failure::fatal("certificate", "the certificate cannot be read back"))
    }

    /// Reads the state of a certificate. Changes nothing.
    pub fn observe(&self, wanted: &Wanted, now: Timestamp) -> Result<Seen, Failure> {
        let folder = self.folder_of(&wanted.name);
        let fails = |error: io::Error| failure(&folder, &error);
        match self.look(wanted).map_err(fails)? {
            Ownership::Absent => Ok(Seen::Absent),
            Ownership::Foreign => Ok(Seen::Foreign),
            Ownership::Own(()) => {
                let key = read(&folder, KEY).map_err(fails)?.and_then(|pem| KeyPair::from_pem(&pem).ok());
                let healthy = match &key {
                    Some(key) => self.current(&folder, wanted, key, now).map_err(fails)?.is_some(),
                    None => false,
                };
                let pem = read(&folder, CERTIFICATE).map_err(fails)?;
                let facts = pem.and_then(|pem| Facts::read(&pem)).map(Box::new);
                Ok(Seen::Present { healthy, facts })
            }
        }
    }

    /// Deletes a certificate, the key first and the owner tag last, and returns its fields if they were
    /// readable. None if no folder with this owner tag exists.
    pub fn remove(&self, wanted: &Wanted) -> Result<Option<Option<Facts>>, Failure> {
        let folder = self.folder_of(&wanted.name);
        let fails = |error: io::Error| failure(&folder, &error);
        if self.look(wanted).map_err(fails)? != Ownership::Own(()) {
            return Ok(None);
        }
        let facts = read(&folder, CERTIFICATE).map_err(fails)?.and_then(|pem| Facts::read(&pem));
        self.clear(&folder).map_err(fails)?;
        Ok(Some(facts))
    }

    fn clear(&self, folder: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_file(folder.join(KEY)))?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name() == OWNER {
                continue;
            }
            let path = entry.path();
            if entry.file_type()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        sync(folder)?;
        fs::remove_file(folder.join(OWNER))?;
        fs::remove_dir(folder)?;
        sync(&self.folder)
    }

    /// Checks that the folder can be written and that the authority can sign.
    pub fn probe(&self, now: Timestamp) -> Result<(), Failure> {
        let written = Builder::new().prefix(".").suffix(DRAFT).tempfile_in(&self.folder);
        written
            .and_then(|mut draft| draft.write_all(b"probe"))
            .map_err(|error| failure(&self.folder, &error))?;
        self.authority.probe(now)
    }

    /// Finds the folder and compares its owner tag. An empty folder counts as nothing: an interrupted removal
    /// leaves one.
    fn look(&self, wanted: &Wanted) -> io::Result<Ownership> {
        let folder = self.folder_of(&wanted.name);
        match read(&folder, OWNER) {
            Ok(Some(claim)) if claim == wanted.claim => Ok(Ownership::Own(())),
            Ok(Some(_)) => Ok(Ownership::Foreign),
            Ok(None) => match fs::read_dir(&folder) {
                Ok(mut entries) => {
                    Ok(if entries.next().is_none() { Ownership::Absent } else { Ownership::Foreign })
                }
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Ownership::Absent),
                Err(error) => Err(error),
            },
            // A file has the name of the folder.
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                self.folder.metadata().map(|_| Ownership::Foreign)
            }
            Err(error) => Err(error),
        }
    }

    /// The certificate, if it is complete, correct and not due.
    fn current(
        &self,
        folder: &Path,
        wanted: &Wanted,
        key: &KeyPair,
        now: Timestamp,
    ) -> io::Result<Option<Facts>> {
        let Some(facts) = read(folder, CERTIFICATE)?.and_then(|pem| Facts::read(&pem)) else {
            return Ok(None);
        };
        let Ok(now) = clock(now) else { return Ok(None) };
        let current = facts.names == wanted.names
            && facts.is_of(key)
            && self.authority.signed(&facts)
            && !facts.is_due(now, self.renew_days)
            && read(folder, CHAIN)?.as_ref() == Some(&self.authority.pem);
        Ok(current.then_some(facts))
    }

    /// The key in the folder, or a new one. Renewal keeps the key, so that key and certificate match at every
    /// moment.
    fn key(&self, folder: &Path) -> Result<KeyPair, Failure> {
        let fails = |error: io::Error| failure(folder, &error);
        if let Some(key) = read(folder, KEY).map_err(fails)?.and_then(|pem| KeyPair::from_pem(&pem).ok()) {
            return Ok(key);
        }
        let key = KeyPair::generate().map_err(|error| {
            Failure::fatal("certificate", format!("cannot generate a private key: {error}"))
        })?;
        write(folder, KEY, &key.serialize_pem()).map_err(fails)?;
        Ok(key)
    }
}

/// Creates a folder together with these files. An error if the name exists.
pub fn make_folder(parent: &Path, folder: &Path, files: &[(&str, String)]) -> io::Result<()> {
    private_folder(parent)?;
    let mut draft = Builder::new();
    draft.prefix(".").suffix(DRAFT).permissions(Permissions::from_mode(PRIVATE));
    let draft = draft.tempdir_in(parent)?;
    for (name, text) in files {
        write(draft.path(), name, text)?;
    }
    fs::rename(draft.path(), folder)?;
    // The draft was renamed, so there is nothing to clean up.
    drop(draft.keep());
    sync(parent)
}

/// Writes a file atomically, readable by its owner alone.
fn write(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let mut draft = Builder::new().prefix(".").suffix(DRAFT).tempfile_in(folder)?;
    draft.write_all(text.as_bytes())?;
    draft.as_file().sync_all()?;
    draft.persist(folder.join(name)).map_err(|refused| refused.error)?;
    sync(folder)
}

fn read(folder: &Path, name: &str) -> io::Result<Option<String>> {
    match fs::read(folder.join(name)) {
        // A file that is not UTF-8 is damaged and will not parse.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE).create(folder)
}

/// Removes drafts of interrupted attempts.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(DRAFT) {
            let path = entry.path();
            if entry.file_type()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
    }
    Ok(())
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A retryable failure: disks and folders can become available again.
pub fn failure(folder: &Path, error: &io::Error) -> Failure {
    let why = format!("the folder of certificates {} cannot be used: {error}", folder.display());
    Failure::retryable("certificate_folder", why)
}
