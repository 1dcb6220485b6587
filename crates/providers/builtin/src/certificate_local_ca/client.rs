//! Certificates as files: a private folder each, with its owner mark from its creation; every file there completely or
//! not at all. All of it blocks; the caller runs it where that is allowed.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use tempfile::Builder;
use tenantry_model::{Failure, Timestamp};

use super::authority::{Authority, clock, is_there};
use super::facts::Facts;

/// The certificate's file.
pub const CERTIFICATE: &str = "cert.pem";
/// The key's file, readable by its owner alone.
pub const KEY: &str = "key.pem";
/// The file with the authority's certificate.
pub const CHAIN: &str = "chain.pem";
/// The file with the owner mark.
const OWNER: &str = "owner";
/// Where the certificates' folders are.
const FOLDER: &str = "certificates";
const DRAFT: &str = ".draft";
/// For its owner alone.
const PRIVATE: u32 = 0o700;

/// A certificate as it shall be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The folder's name.
    pub name: String,
    /// The owner mark.
    pub claim: String,
    /// The names it proves.
    pub names: Vec<String>,
    /// How long it lives.
    pub days: u32,
}

/// What is there under a name.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Ours,
    Foreign,
}

/// What a look finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing of this name.
    Absent,
    /// Somebody else's.
    Foreign,
    /// Ours.
    Present {
        /// Whether nothing has to be done.
        healthy: bool,
        /// The certificate, if there is one.
        facts: Option<Box<Facts>>,
    },
}

/// The folders, and who signs.
pub struct Cabinet {
    folder: PathBuf,
    authority: Authority,
    renew_days: Option<u32>,
}

impl Cabinet {
    /// Opens the folder, makes it if it is missing, and takes away what was never finished.
    pub fn open(folder: &Path, authority: Authority, renew_days: Option<u32>) -> Result<Self, Failure> {
        let folder = folder.join(FOLDER);
        let opened = private_folder(&folder).and_then(|()| sweep(&folder));
        opened.map_err(|error| failure(&folder, &error))?;
        Ok(Self { folder, authority, renew_days })
    }

    /// Where a certificate's files are.
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes it so, and says what the certificate says. Only what is missing, wrong or due is made.
    pub fn make(&self, wanted: &Wanted, now: Timestamp) -> Result<Facts, Failure> {
        let place = self.place(&wanted.name);
        let fails = |error: io::Error| failure(&place, &error);
        if self.look(wanted).map_err(fails)? == Found::Nothing {
            match make_folder(&self.folder, &place, &[(OWNER, wanted.claim.clone())]) {
                Err(error) if is_there(&error) => {}
                done => done.map_err(fails)?,
            }
        }
        if self.look(wanted).map_err(fails)? != Found::Ours {
            let why = "a certificate of somebody else has this name; it was not touched";
            return Err(Failure::fatal("name_taken", why));
        }
        sweep(&place).map_err(fails)?;
        let key = self.key(&place)?;
        if let Some(facts) = self.standing(&place, wanted, &key, now).map_err(fails)? {
            return Ok(facts);
        }
        let pem = self.authority.issue(&wanted.names, &key, now, wanted.days)?;
        write(&place, CHAIN, &self.authority.pem).map_err(fails)?;
        write(&place, CERTIFICATE, &pem).map_err(fails)?;
        Facts::read(&pem).ok_or_else(|| Failure::fatal("certificate", "the certificate cannot be read back"))
    }

    /// What is there. Changes nothing.
    pub fn observe(&self, wanted: &Wanted, now: Timestamp) -> Result<Seen, Failure> {
        let place = self.place(&wanted.name);
        let fails = |error: io::Error| failure(&place, &error);
        match self.look(wanted).map_err(fails)? {
            Found::Nothing => Ok(Seen::Absent),
            Found::Foreign => Ok(Seen::Foreign),
            Found::Ours => {
                let key = read(&place, KEY).map_err(fails)?.and_then(|pem| KeyPair::from_pem(&pem).ok());
                let healthy = match &key {
                    Some(key) => self.standing(&place, wanted, key, now).map_err(fails)?.is_some(),
                    None => false,
                };
                let pem = read(&place, CERTIFICATE).map_err(fails)?;
                let facts = pem.and_then(|pem| Facts::read(&pem)).map(Box::new);
                Ok(Seen::Present { healthy, facts })
            }
        }
    }

    /// Makes it not so, the key first and the owner mark last, and says which certificate it was. None: nothing was there.
    pub fn remove(&self, wanted: &Wanted) -> Result<Option<Option<Facts>>, Failure> {
        let place = self.place(&wanted.name);
        let fails = |error: io::Error| failure(&place, &error);
        if self.look(wanted).map_err(fails)? != Found::Ours {
            return Ok(None);
        }
        let facts = read(&place, CERTIFICATE).map_err(fails)?.and_then(|pem| Facts::read(&pem));
        self.clear(&place).map_err(fails)?;
        Ok(Some(facts))
    }

    fn clear(&self, place: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_file(place.join(KEY)))?;
        for entry in fs::read_dir(place)? {
            let entry = entry?;
            if entry.file_name() == OWNER {
                continue;
            }
            let path = entry.path();
            if entry.file_type()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        sync(place)?;
        fs::remove_file(place.join(OWNER))?;
        fs::remove_dir(place)?;
        sync(&self.folder)
    }

    /// Whether the folder can be written and the authority can sign.
    pub fn probe(&self, now: Timestamp) -> Result<(), Failure> {
        let written = Builder::new().prefix(".").suffix(DRAFT).tempfile_in(&self.folder);
        written
            .and_then(|mut draft| draft.write_all(b"probe"))
            .map_err(|error| failure(&self.folder, &error))?;
        self.authority.probe(now)
    }

    /// By the owner mark. An empty folder is what a removal leaves that was cut off.
    fn look(&self, wanted: &Wanted) -> io::Result<Found> {
        let place = self.place(&wanted.name);
        match read(&place, OWNER) {
            Ok(Some(claim)) if claim == wanted.claim => Ok(Found::Ours),
            Ok(Some(_)) => Ok(Found::Foreign),
            Ok(None) => match fs::read_dir(&place) {
                Ok(mut entries) => Ok(if entries.next().is_none() { Found::Nothing } else { Found::Foreign }),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
                Err(error) => Err(error),
            },
            // A file where the folder should be.
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                self.folder.metadata().map(|_| Found::Foreign)
            }
            Err(error) => Err(error),
        }
    }

    /// The certificate, if it is complete, right and not due.
    fn standing(
        &self,
        place: &Path,
        wanted: &Wanted,
        key: &KeyPair,
        now: Timestamp,
    ) -> io::Result<Option<Facts>> {
        let Some(facts) = read(place, CERTIFICATE)?.and_then(|pem| Facts::read(&pem)) else {
            return Ok(None);
        };
        let Ok(now) = clock(now) else { return Ok(None) };
        let stands = facts.names == wanted.names
            && facts.is_of(key)
            && self.authority.signed(&facts)
            && !facts.is_due(now, self.renew_days)
            && read(place, CHAIN)?.as_ref() == Some(&self.authority.pem);
        Ok(stands.then_some(facts))
    }

    /// The key in the folder, or a new one. It stays the same when the certificate is renewed, so that the two files fit
    /// at every instant.
    fn key(&self, place: &Path) -> Result<KeyPair, Failure> {
        let fails = |error: io::Error| failure(place, &error);
        if let Some(key) = read(place, KEY).map_err(fails)?.and_then(|pem| KeyPair::from_pem(&pem).ok()) {
            return Ok(key);
        }
        let key = KeyPair::generate()
            .map_err(|error| Failure::fatal("certificate", format!("no key can be made: {error}")))?;
        write(place, KEY, &key.serialize_pem()).map_err(fails)?;
        Ok(key)
    }
}

/// A folder that has these files from its creation. Fails if something is there already.
pub fn make_folder(parent: &Path, folder: &Path, files: &[(&str, String)]) -> io::Result<()> {
    private_folder(parent)?;
    let mut draft = Builder::new();
    draft.prefix(".").suffix(DRAFT).permissions(Permissions::from_mode(PRIVATE));
    let draft = draft.tempdir_in(parent)?;
    for (name, text) in files {
        write(draft.path(), name, text)?;
    }
    fs::rename(draft.path(), folder)?;
    // It has another name now; there is nothing left to clean up.
    drop(draft.keep());
    sync(parent)
}

/// Writes a file that its owner alone can read, in one piece.
fn write(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let mut draft = Builder::new().prefix(".").suffix(DRAFT).tempfile_in(folder)?;
    draft.write_all(text.as_bytes())?;
    draft.as_file().sync_all()?;
    draft.persist(folder.join(name)).map_err(|refused| refused.error)?;
    sync(folder)
}

fn read(folder: &Path, name: &str) -> io::Result<Option<String>> {
    match fs::read(folder.join(name)) {
        // A file that is no text is a damaged one, and is treated as such.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE).create(folder)
}

/// Removes what an attempt that was cut off has left.
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

/// The disk and the folder can come back: all of it is worth another attempt.
pub fn failure(folder: &Path, error: &io::Error) -> Failure {
    let why = format!("the folder of certificates {} cannot be used: {error}", folder.display());
    Failure::retryable("certificate_folder", why)
}
