//! Creates, replaces and deletes a resource's folder below a common root, atomically: the folder is filled
//! under a private name, synced and renamed, and renamed again before it is deleted. All functions block.
//! Does not check owner tags: that is the provider's task.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::Builder;
use tenantry_model::id::ResourceId;
use tenantry_model::{Failure, TenantId};

use crate::files::is_plain;

/// Folder of drafts, of folders to be deleted, and of the links by tenant.
const PRIVATE: &str = ".tenantry";
/// Longest name, in bytes; file systems allow 255.
const MAX_NAME: usize = 200;

/// Path of a resource's folder, which may not exist yet.
#[derive(Clone, Debug)]
pub struct ResourceFolder {
    root: PathBuf,
    name: String,
    resource: String,
}

/// Number and size of the files in a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Number of files, at any depth.
    pub files: u64,
    /// Sum of their bytes.
    pub bytes: u64,
}

/// An error `bad_name` if a folder of this name could lie elsewhere, or if the name is too long.
pub fn check_folder_name(name: &str) -> Result<(), Failure> {
    if is_plain(name) && name.len() <= MAX_NAME {
        return Ok(());
    }
    let message = format!(
        "the name of a folder must have up to {MAX_NAME} letters, digits, `.`, `_` and `-`, and must not start with `.`: \
         change `names` in the template"
    );
    Err(Failure::invalid("bad_name", message))
}

impl ResourceFolder {
    /// The folder `name` below `root`. An error `bad_name` if the name could lead elsewhere or is too long.
    pub fn new(root: &Path, name: &str, resource: ResourceId) -> Result<Self, Failure> {
        check_folder_name(name)?;
        Ok(Self { root: root.to_owned(), name: name.to_owned(), resource: resource.suffix() })
    }

    /// Path of the folder.
    pub fn path(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// Whether anything exists under the name.
    pub fn exists(&self) -> Result<bool, Failure> {
        self.path_exists(&self.path())
    }

    /// Whether an interrupted attempt or removal left anything that [`Self::sweep`] removes.
    pub fn has_remains(&self) -> Result<bool, Failure> {
        Ok(self.path_exists(&self.private("draft"))? || self.path_exists(&self.private("gone"))?)
    }

    fn path_exists(&self, path: &Path) -> Result<bool, Failure> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            other => other.map(|_| true).map_err(|error| self.failure(&error)),
        }
    }

    /// Creates an empty private folder, to be filled and published.
    pub fn draft(&self) -> Result<PathBuf, Failure> {
        self.sweep()?;
        let draft = self.private("draft");
        let made = private_folder(&self.root).and_then(|_| DirBuilder::new().mode(0o700).create(&draft));
        made.map(|()| draft).map_err(|error| self.failure(&error))
    }

    /// Claims a folder that was filled in advance as the draft, by an atomic rename; of concurrent callers
    /// one succeeds. None if the folder is gone. The rename is not synced: after a power cut the folder can
    /// be back under its old name, with later writes in it.
    pub fn adopt(&self, ready: &Path) -> Result<Option<PathBuf>, Failure> {
        self.sweep()?;
        let draft = self.private("draft");
        match renameat_with(CWD, ready, CWD, &draft, RenameFlags::NOREPLACE).map_err(io::Error::from) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => other.map(|()| Some(draft)).map_err(|error| self.failure(&error)),
        }
    }

    /// Renames the draft to its final name and returns when that is on the disk. If the name is taken,
    /// deletes the draft and returns false.
    pub fn publish(&self) -> Result<bool, Failure> {
        let renamed = self.rename_draft(RenameFlags::NOREPLACE);
        match renamed {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.sweep().map(|()| false),
            other => other.map(|()| true).map_err(|error| self.failure(&error)),
        }
    }

    /// Exchanges the draft with the existing folder in one step, and deletes the old folder.
    pub fn replace(&self) -> Result<(), Failure> {
        self.rename_draft(RenameFlags::EXCHANGE).map_err(|error| self.failure(&error))?;
        self.sweep()
    }

    fn rename_draft(&self, flags: RenameFlags) -> io::Result<()> {
        let draft = self.private("draft");
        sync(&draft)?;
        renameat_with(CWD, &draft, CWD, self.path(), flags)?;
        File::open(&self.root)?.sync_all()
    }

    /// Deletes the folder with its content and returns its size. For readers it disappears at once.
    pub fn remove(&self) -> Result<Size, Failure> {
        let gone = self.private("gone");
        let removed = private_folder(&self.root)
            .and_then(|_| size(&self.path()))
            .and_then(|size| fs::rename(self.path(), &gone).map(|()| size))
            .and_then(|size| File::open(&self.root)?.sync_all().map(|()| size));
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => self.sweep().map(|()| Size::default()),
            Err(error) => Err(self.failure(&error)),
            Ok(size) => self.sweep().map(|()| size),
        }
    }

    /// Removes what interrupted attempts left.
    pub fn sweep(&self) -> Result<(), Failure> {
        ["draft", "gone"].into_iter().try_for_each(|word| match fs::remove_dir_all(self.private(word)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failure(&error)),
            _ => Ok(()),
        })
    }

    /// Links the folder to its tenant; false if the tenant has another folder.
    pub fn link(&self, tenant: TenantId) -> Result<bool, Failure> {
        match linked(&self.root, tenant) {
            Some(name) if name == self.name => return Ok(true),
            Some(name) if fs::symlink_metadata(self.root.join(&name)).is_ok() => return Ok(false),
            _ => {}
        }
        let draft = self.private("link");
        let made = private_folder(&self.root).and_then(|_| {
            missing_is_fine(fs::remove_file(&draft))?;
            symlink(Path::new("..").join(&self.name), &draft)?;
            fs::rename(&draft, link(&self.root, tenant))?;
            File::open(private(&self.root))?.sync_all()
        });
        made.map(|()| true).map_err(|error| self.failure(&error))
    }

    /// Deletes the tenant's link if it leads to this folder.
    pub fn unlink(&self, tenant: TenantId) -> Result<(), Failure> {
        if linked(&self.root, tenant).as_deref() != Some(&*self.name) {
            return Ok(());
        }
        missing_is_fine(fs::remove_file(link(&self.root, tenant))).map_err(|error| self.failure(&error))
    }

    fn private(&self, word: &str) -> PathBuf {
        private(&self.root).join(format!("{}.{word}", self.resource))
    }

    /// Converts an error of the file system below the root.
    pub fn failure(&self, error: &io::Error) -> Failure {
        failure(&self.root, error)
    }
}

/// Name of the folder that a tenant's link leads to.
pub fn linked(root: &Path, tenant: TenantId) -> Option<String> {
    fs::read_link(link(root, tenant)).ok()?.file_name()?.to_str().map(str::to_owned)
}

fn link(root: &Path, tenant: TenantId) -> PathBuf {
    private(root).join(tenant.to_string())
}

/// Path of the private folder below `root`.
pub fn private(root: &Path) -> PathBuf {
    root.join(PRIVATE)
}

/// The private folder below `root`. Creates both if they are missing.
pub fn private_folder(root: &Path) -> io::Result<PathBuf> {
    let folder = private(root);
    if !folder.is_dir() {
        fs::create_dir_all(root)?;
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.and_then(|()| File::open(root)?.sync_all())?,
        }
    }
    Ok(folder)
}

/// The names below `root` in alphabetical order, without private ones.
pub fn names(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(names),
        other => other?,
    };
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok().filter(|name| is_plain(name)));
    }
    names.sort();
    Ok(names)
}

/// Checks that files and folders can be created below `root`.
pub fn probe(root: &Path) -> Result<(), Failure> {
    let tried = private_folder(root).and_then(|folder| {
        let probe = Builder::new().prefix("probe").tempdir_in(folder)?;
        write(&probe.path().join("file"), b"")?;
        probe.close()
    });
    tried.map_err(|error| failure(root, &error))
}

/// Writes a file atomically, readable by its owner alone.
pub fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().ok_or(ErrorKind::InvalidInput)?;
    let mut draft = Builder::new().prefix(".draft").tempfile_in(folder)?;
    draft.write_all(bytes)?;
    draft.as_file().sync_all()?;
    draft.persist(file).map_err(|refused| refused.error)?;
    File::open(folder)?.sync_all()
}

/// Converts an error of the file system below `root` into a retryable failure: disks and folders can become
/// available again.
pub fn failure(root: &Path, error: &io::Error) -> Failure {
    let root = root.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Failure::retryable("disk_full", format!("the disk of {root} is full: free some space"))
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Failure::retryable(
            "read_only",
            format!("{root} is not writable: give the user of this process write permission"),
        ),
        _ => Failure::retryable("cannot_open", format!("the folder {root} cannot be used: {error}")),
    }
}

fn missing_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Counts the files in a folder at any depth, and their bytes.
pub fn size(folder: &Path) -> io::Result<Size> {
    let mut all = Size::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let inner = size(&entry.path())?;
            all.files += inner.files;
            all.bytes += inner.bytes;
        } else {
            all.files += 1;
            all.bytes += entry.metadata()?.len();
        }
    }
    Ok(all)
}

/// Syncs a folder and everything in it to the disk.
pub fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named_thing(root: &Path) -> ResourceFolder {
        ResourceFolder::new(root, "thing", ResourceId::new()).unwrap()
    }

    fn fill(folder: &ResourceFolder, text: &str) {
        fs::write(folder.draft().unwrap().join("file"), text).unwrap();
    }

    #[test]
    fn rejects_names_that_lead_elsewhere() {
        let long = "a".repeat(201);
        for bad in ["", ".", "..", "../x", "a/b", "/etc", "a\0b", ".tenantry", "ä", "a\\b", &long] {
            let failure = ResourceFolder::new(Path::new("/x"), bad, ResourceId::new()).unwrap_err();
            assert_eq!(failure.code, "bad_name", "{bad:?}");
        }
    }

    #[test]
    fn folders_appear_and_disappear_atomically() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let (one, two) = (named_thing(&root), named_thing(&root));
        fill(&one, "cut off");
        fill(&one, "one");
        assert!(!one.exists().unwrap());
        assert!(one.has_remains().unwrap() && one.publish().unwrap() && !one.has_remains().unwrap());
        fill(&two, "two");
        assert!(!two.publish().unwrap(), "the name is taken");
        assert_eq!(fs::read_to_string(one.path().join("file")).unwrap(), "one");
        fill(&one, "three");
        one.replace().unwrap();
        assert_eq!(fs::read_to_string(one.path().join("file")).unwrap(), "three");
        assert_eq!(one.remove().unwrap(), Size { files: 1, bytes: 5 });
        assert_eq!(one.remove().unwrap(), Size::default());
        assert_eq!(fs::read_dir(root.join(PRIVATE)).unwrap().count(), 0, "no private folder is left");
    }

    #[test]
    fn a_tenant_has_one_linked_folder() {
        let dir = tempfile::tempdir().unwrap();
        let tenant = TenantId::new();
        let one = named_thing(dir.path());
        let two = ResourceFolder::new(dir.path(), "other", ResourceId::new()).unwrap();
        for folder in [&one, &two] {
            fill(folder, "");
            folder.publish().unwrap();
        }
        assert!(one.link(tenant).unwrap() && one.link(tenant).unwrap());
        assert!(!two.link(tenant).unwrap());
        two.unlink(tenant).unwrap();
        assert_eq!(linked(dir.path(), tenant).as_deref(), Some("thing"));
        one.remove().unwrap();
        assert!(two.link(tenant).unwrap(), "a dangling link is replaced");
        assert_eq!(names(dir.path()).unwrap(), ["other"]);
    }

    #[test]
    fn an_unusable_root_is_a_retryable_failure() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, "").unwrap();
        for failure in [probe(&blocked).unwrap_err(), named_thing(&blocked).draft().unwrap_err()] {
            assert!(failure.may_retry(), "{failure}");
        }
        let denied = failure(&blocked, &io::Error::from(ErrorKind::ReadOnlyFilesystem));
        assert_eq!(denied.code, "read_only");
        let full = failure(&blocked, &io::Error::from(ErrorKind::StorageFull));
        assert_eq!(full.code, "disk_full");
        fs::remove_file(&blocked).unwrap();
        probe(&blocked).unwrap();
    }
}
