//! Allows one process per data folder, by an operating-system lock that a crash releases. The lock file
//! contains the holder's process id and URL as JSON, for operators and for clients on the same machine.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The process that holds a data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Base URL, once the process accepts connections.
    pub url: Option<String>,
}

/// A held lock. The operating system releases it when the process ends.
pub struct Lock {
    file: File,
}

fn path(folder: &Path) -> PathBuf {
    folder.join("lock")
}

impl Lock {
    /// Locks the folder. If another process has it, the error names that process.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = path(folder);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = match holder(folder) {
                    Some(Holder { pid, url: Some(url) }) => format!("process {pid}, which listens on {url}"),
                    Some(Holder { pid, url: None }) => format!("process {pid}"),
                    None => "another process".to_owned(),
                };
                bail!("{} is in use by {holder}; stop it or choose another data folder", folder.display());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let mut lock = Self { file };
        lock.write(None)?;
        Ok(lock)
    }

    /// Writes the process's URL to the lock file.
    pub fn announce(&mut self, url: &str) -> Result<()> {
        self.write(Some(url.to_owned()))
    }

    fn write(&mut self, url: Option<String>) -> Result<()> {
        let text = serde_json::to_string(&Holder { pid: std::process::id(), url })?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.set_len(0)?;
        self.file.write_all(text.as_bytes()).context("cannot write the lock file")
    }
}

/// The current or most recent holder of the folder, from its lock file.
pub fn holder(folder: &Path) -> Option<Holder> {
    serde_json::from_str(&std::fs::read_to_string(path(folder)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_gets_the_holder_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = Lock::take(folder.path()).unwrap();
        lock.announce("http://127.0.0.1:1").unwrap();
        let error = Lock::take(folder.path()).err().unwrap().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())) && error.contains("127.0.0.1:1"),
            "{error}"
        );
        drop(lock);
        assert!(Lock::take(folder.path()).is_ok());
    }
}
