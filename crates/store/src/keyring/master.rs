//! Reads or creates the master key: 32 bytes in a file that only its owner may access, or root's group. It encrypts every
//! other key. Touches this file only; the key is kept in memory and overwritten when it is dropped.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::cipher::SecretBytes;

/// Length of the key, in bytes.
const LENGTH: usize = 32;

/// The key that encrypts all others.
pub struct MasterKey(pub(super) SecretBytes);

/// Error of reading or creating the master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The file cannot be read or created.
    #[error("the master key {0} cannot be read: {1}")]
    File(PathBuf, std::io::Error),
    /// The mode of the file lets other users access it.
    #[error("other users can read the master key {0}: run chmod 600 {0}")]
    Open(PathBuf),
    /// The file does not have exactly 32 bytes.
    #[error("the master key {0} must have exactly 32 bytes, such as: head -c 32 /dev/urandom > {0}")]
    Length(PathBuf),
}

impl MasterKey {
    /// Reads the key from this file. Rejects a file that other users may access, or that does not have 32 bytes.
    pub fn read(path: &Path) -> Result<Self, MasterKeyError> {
        let failed = |error| MasterKeyError::File(path.to_owned(), error);
        let file = File::open(path).map_err(failed)?;
        if !is_private(&file.metadata().map_err(failed)?) {
            return Err(MasterKeyError::Open(path.to_owned()));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH + 1));
        file.take(LENGTH as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() == LENGTH { Ok(Self(bytes)) } else { Err(MasterKeyError::Length(path.to_owned())) }
    }

    /// Reads the key from this file; creates the file with a random key if it is missing. For development,
    /// where key and data are in one folder and are lost together.
    pub fn read_or_create(path: &Path) -> Result<Self, MasterKeyError> {
        match Self::read(path) {
            Err(MasterKeyError::File(_, error)) if error.kind() == ErrorKind::NotFound => {
                Self::create(path).map_err(|error| MasterKeyError::File(path.to_owned(), error))?;
                Self::read(path)
            }
            result => result,
        }
    }

    /// Writes a random key to a temporary file and links it to `path`, so that a reader never sees an
    /// incomplete key. Keeps a key that another process has created there meanwhile.
    fn create(path: &Path) -> std::io::Result<()> {
        let aside = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(&super::random(LENGTH))?;
        file.sync_all()?;
        let linked = std::fs::hard_link(&aside, path);
        std::fs::remove_file(&aside)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // The file's name must be durable before the key encrypts anything.
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

/// Whether no other user can access the file. The group may read a file of root: this is how systemd (credentials of a
/// service with `User=`) and Kubernetes (secrets with `fsGroup`) hand a file to one service.
fn is_private(file: &Metadata) -> bool {
    let of_others = file.mode() & 0o077;
    of_others == 0 || of_others == 0o040 && file.uid() == 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        assert!(matches!(MasterKey::read(&path), Err(MasterKeyError::File(..))));
        let key = MasterKey::read_or_create(&path).unwrap();
        assert_eq!(*key.0, *MasterKey::read_or_create(&path).unwrap().0);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn refused_when_others_may_read_it_or_it_is_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        for length in [0, 31, 33] {
            std::fs::write(&path, vec![1; length]).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(MasterKey::read_or_create(&path), Err(MasterKeyError::Length(_))), "{length}");
        }
        for mode in [0o604, 0o620, 0o660, 0o444] {
            std::fs::write(&path, [1; 32]).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(MasterKey::read(&path), Err(MasterKeyError::Open(_))), "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).unwrap();
        let is_of_root = std::fs::metadata(&path).unwrap().uid() == 0;
        assert_eq!(
            MasterKey::read(&path).is_ok(),
            is_of_root,
            "only root's files may be its group's as well"
        );
        if is_of_root {
            chown(&path, Some(65_534), None).unwrap();
            assert!(matches!(MasterKey::read(&path), Err(MasterKeyError::Open(_))));
        }
    }
}
