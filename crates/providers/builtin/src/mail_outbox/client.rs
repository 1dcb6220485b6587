//! Stores outbox messages as files, one per message, each written atomically. The owner tag is in a header of
//! the message. All functions block.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::Builder;
use tenantry_model::Failure;
use tenantry_provider::verbs::Ownership;

/// Header that holds the digest of the owner tag.
pub const OWNER: &str = "X-Tenantry-Owner";
/// Bytes at the start of a file in which the owner tag must be.
const HEAD: u64 = 16 * 1024;

/// Path of a message in the folder.
#[derive(Clone, Debug)]
pub struct ResourceFolder {
    folder: PathBuf,
    name: String,
}

impl ResourceFolder {
    /// The file `{name}.eml`. `name` must be derived from an id.
    pub fn new(folder: &Path, name: &str) -> Self {
        Self { folder: folder.to_owned(), name: name.to_owned() }
    }

    /// File of the message.
    pub fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.eml", self.name))
    }

    /// Reads the message's headers and compares the owner tag.
    pub fn look(&self, mark: &str) -> Result<Ownership, Failure> {
        let mut head = Vec::new();
        match File::open(self.file()) {
            Ok(file) => file.take(HEAD).read_to_end(&mut head).map_err(|error| self.failure(&error))?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ownership::Absent),
            Err(error) => return Err(self.failure(&error)),
        };
        let line = format!("{OWNER}: {mark}");
        // An empty line ends the headers: a tag in the body does not count.
        let mut lines =
            head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let owned = lines.by_ref().take_while(|line| !line.is_empty()).any(|found| found == line.as_bytes());
        Ok(if owned { Ownership::Own(()) } else { Ownership::Foreign })
    }

    /// Reads the whole message.
    pub fn read(&self) -> Result<Vec<u8>, Failure> {
        fs::read(self.file()).map_err(|error| self.failure(&error))
    }

    /// Writes the message and returns when it is on the disk; false if the file exists.
    pub fn put(&self, message: &[u8]) -> Result<bool, Failure> {
        self.try_put(message).map_err(|error| self.failure(&error))
    }

    fn try_put(&self, message: &[u8]) -> std::io::Result<bool> {
        fs::create_dir_all(&self.folder)?;
        self.sweep()?;
        let mut draft = Builder::new().prefix(&self.draft()).rand_bytes(0).tempfile_in(&self.folder)?;
        draft.write_all(message)?;
        draft.as_file().sync_all()?;
        match draft.persist_noclobber(self.file()) {
            Ok(_) => File::open(&self.folder)?.sync_all().map(|()| true),
            Err(refused) if refused.error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(refused) => Err(refused.error),
        }
    }

    /// Deletes the message; no error if it does not exist.
    pub fn remove(&self) -> Result<(), Failure> {
        let removed = match fs::remove_file(self.file()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| File::open(&self.folder)?.sync_all()),
        };
        removed.map_err(|error| self.failure(&error))
    }

    /// Removes the draft of an interrupted attempt.
    pub fn sweep(&self) -> std::io::Result<()> {
        match fs::remove_file(self.folder.join(self.draft())) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn draft(&self) -> String {
        format!(".{}.draft", self.name)
    }

    /// A retryable failure: disks and folders can become available again.
    pub fn failure(&self, error: &std::io::Error) -> Failure {
        Failure::retryable("outbox", format!("the outbox {} cannot be used: {error}", self.folder.display()))
    }
}
