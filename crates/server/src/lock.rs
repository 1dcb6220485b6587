//! One process per data folder: an operating-system lock, which no crash can leave behind. The lock's file says who
//! holds it and where it listens, for people and for clients on the same machine.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Who holds a data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Where it listens, once it does.
    pub url: Option<String>,
}

/// A held lock. It ends with the process, however that ends.
pub struct Lock {
    file: File,
}

fn path(folder: &Path) -> PathBuf {
    folder.join("lock")
}

impl Lock {
    /// Takes the folder, or says who has it.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = path(folder);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let who = match holder(folder) {
                    Some(Holder { pid, url: Some(url) }) => format!("process {pid}, which listens on {url}"),
                    Some(Holder { pid, url: None }) => format!("process {pid}"),
                    None => "another process".to_owned(),
                };
                bail!("{} is in use by {who}; stop it, or choose another data folder", folder.display());
            }
            Err(TryLockError::Error(why)) => {
                return Err(why).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let mut lock = Self { file };
        lock.write(None)?;
        Ok(lock)
    }

    /// Says where the process listens.
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

/// Who holds the folder, or held it last.
pub fn holder(folder: &Path) -> Option<Holder> {
    serde_json::from_str(&std::fs::read_to_string(path(folder)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = Lock::take(folder.path()).unwrap();
        lock.announce("http://127.0.0.1:1").unwrap();
        let refused = Lock::take(folder.path()).err().unwrap().to_string();
        assert!(
            refused.contains(&format!("process {}", std::process::id())) && refused.contains("127.0.0.1:1"),
            "{refused}"
        );
        drop(lock);
        assert!(Lock::take(folder.path()).is_ok());
    }
}
