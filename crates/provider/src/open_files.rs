//! A cache of the most recently used open files, so that the cost depends on the active tenants and not on
//! all. Detects when another file has taken a name.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moka::sync::Cache;
use tenantry_model::Failure;
use tokio::sync::OnceCell;

/// Identity of a file independent of its name: device and inode.
pub type Identity = (u64, u64);

/// Identity of the file that currently has this name.
pub fn identity(file: &Path) -> Option<Identity> {
    std::fs::metadata(file).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// The open files, each as a `T`.
pub struct OpenFiles<T> {
    files: Cache<PathBuf, Arc<Opened<T>>>,
}

struct Opened<T> {
    identity: Identity,
    file: OnceCell<Arc<T>>,
}

impl<T: Send + Sync + 'static> OpenFiles<T> {
    /// Creates a cache of about `most` files. A file that is evicted while in use closes after its last use.
    pub fn new(most: u64) -> Self {
        Self { files: Cache::new(most) }
    }

    /// The file, opened with `open` if it is not cached; none if it does not exist.
    pub async fn get(
        &self,
        file: &Path,
        open: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Option<Arc<T>>, Failure> {
        let Some(identity) = identity(file) else { return Ok(None) };
        let fresh = || Arc::new(Opened { identity, file: OnceCell::new() });
        let mut opened = self.files.get_with_by_ref(file, fresh);
        if opened.identity != identity {
            opened = fresh();
            self.files.insert(file.to_owned(), opened.clone());
        }
        opened.file.get_or_try_init(|| async { open.await.map(Arc::new) }).await.cloned().map(Some)
    }

    /// Removes a file from the cache.
    pub fn forget(&self, file: &Path) {
        self.files.invalidate(file);
    }

    /// Number of cached files.
    pub fn kept(&self) -> u64 {
        self.files.run_pending_tasks();
        self.files.entry_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_opened_once_until_it_is_replaced_or_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a"), dir.path().join("b"));
        let files = OpenFiles::new(8);
        let open = |n: u8| async move { Ok(n) };
        assert_eq!(files.get(&file, open(0)).await.unwrap(), None);
        std::fs::write(&file, "").unwrap();
        let fails = async { Err(Failure::retryable("busy", "not now")) };
        assert_eq!(files.get(&file, fails).await.unwrap_err().code, "busy");
        assert_eq!(files.get(&file, open(1)).await.unwrap().as_deref(), Some(&1), "a failure is not cached");
        assert_eq!(files.get(&file, open(2)).await.unwrap().as_deref(), Some(&1));
        std::fs::write(&other, "").unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert_eq!(files.get(&file, open(3)).await.unwrap().as_deref(), Some(&3));
        files.forget(&file);
        assert_eq!(files.get(&file, open(4)).await.unwrap().as_deref(), Some(&4));
    }
}
