//! A tenant's own folder below a common one: there as a whole or not at all. It is filled under a private name, brought to
//! the disk and renamed; it leaves by being renamed first. All of it blocks; the caller runs it where that is allowed.
//! Knows no owners: who may do what with a folder that is there is the provider's to find out.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::Builder;
use tenantry_model::id::ResourceId;
use tenantry_model::{Failure, TenantId};

use crate::files::is_plain;

/// Holds what is not there yet, what is on its way out, and the links by tenant.
const PRIVATE: &str = ".tenantry";
/// Longest name in bytes; file systems take 255.
const MAX_NAME: usize = 200;

/// Where a resource's folder is, or will be.
#[derive(Clone, Debug)]
pub struct Place {
    root: PathBuf,
    name: String,
    resource: String,
}

/// How much was in a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Files, at any depth.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl Place {
    /// The folder `name` below `root`. Refuses a name that could lead elsewhere.
    pub fn new(root: &Path, name: &str, resource: ResourceId) -> Result<Self, Failure> {
        if !is_plain(name) || name.len() > MAX_NAME {
            return Err(Failure::invalid(
                "bad_name",
                format!(
                    "a name of a folder has up to {MAX_NAME} letters, digits, `.`, `_` and `-`, and no `.` in front: change `names` in the template"
                ),
            ));
        }
        Ok(Self { root: root.to_owned(), name: name.to_owned(), resource: resource.suffix() })
    }

    /// The folder.
    pub fn folder(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// Whether anything has that name.
    pub fn exists(&self) -> Result<bool, Failure> {
        self.is_there(&self.folder())
    }

    /// Whether something is left of an attempt that was cut off, or of a removal: what [`Self::sweep`] removes.
    pub fn has_remains(&self) -> Result<bool, Failure> {
        Ok(self.is_there(&self.private("draft"))? || self.is_there(&self.private("gone"))?)
    }

    fn is_there(&self, path: &Path) -> Result<bool, Failure> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            other => other.map(|_| true).map_err(|error| self.failure(&error)),
        }
    }

    /// An empty folder that nobody else may read, to be filled.
    pub fn draft(&self) -> Result<PathBuf, Failure> {
        self.sweep()?;
        let draft = self.private("draft");
        let made = private_folder(&self.root).and_then(|_| DirBuilder::new().mode(0o700).create(&draft));
        made.map(|()| draft).map_err(|error| self.failure(&error))
    }

    /// A folder that was filled beforehand becomes the draft, in one step: of those who want it, one gets it. None: it is
    /// not there any more. The disk is not waited for: after a power cut the folder can be back where it was, with some of
    /// what was written into it since.
    pub fn adopt(&self, ready: &Path) -> Result<Option<PathBuf>, Failure> {
        self.sweep()?;
        let draft = self.private("draft");
        match renameat_with(CWD, ready, CWD, &draft, RenameFlags::NOREPLACE).map_err(io::Error::from) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => other.map(|()| Some(draft)).map_err(|error| self.failure(&error)),
        }
    }

    /// Gives the draft its name and returns when that is on the disk. False: something has the name; the draft is gone.
    pub fn publish(&self) -> Result<bool, Failure> {
        let renamed = self.settle(RenameFlags::NOREPLACE);
        match renamed {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.sweep().map(|()| false),
            other => other.map(|()| true).map_err(|error| self.failure(&error)),
        }
    }

    /// Puts the draft in the place of the folder that is there, in one step, and removes that.
    pub fn replace(&self) -> Result<(), Failure> {
        self.settle(RenameFlags::EXCHANGE).map_err(|error| self.failure(&error))?;
        self.sweep()
    }

    fn settle(&self, flags: RenameFlags) -> io::Result<()> {
        let draft = self.private("draft");
        sync(&draft)?;
        renameat_with(CWD, &draft, CWD, self.folder(), flags)?;
        File::open(&self.root)?.sync_all()
    }

    /// Removes the folder with all that is in it, and counts that. To everybody else it goes at once.
    pub fn remove(&self) -> Result<Size, Failure> {
        let gone = self.private("gone");
        let removed = private_folder(&self.root)
            .and_then(|_| size(&self.folder()))
            .and_then(|size| fs::rename(self.folder(), &gone).map(|()| size))
            .and_then(|size| File::open(&self.root)?.sync_all().map(|()| size));
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => self.sweep().map(|()| Size::default()),
            Err(error) => Err(self.failure(&error)),
            Ok(size) => self.sweep().map(|()| size),
        }
    }

    /// Removes what attempts that were cut off have left.
    pub fn sweep(&self) -> Result<(), Failure> {
        ["draft", "gone"].into_iter().try_for_each(|word| match fs::remove_dir_all(self.private(word)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failure(&error)),
            _ => Ok(()),
        })
    }

    /// Lets the folder be found by its tenant. False: another folder is the tenant's.
    pub fn link(&self, tenant: TenantId) -> Result<bool, Failure> {
        match linked(&self.root, tenant) {
            Some(name) if name == self.name => return Ok(true),
            Some(name) if fs::symlink_metadata(self.root.join(&name)).is_ok() => return Ok(false),
            _ => {}
        }
        let draft = self.private("link");
        let made = private_folder(&self.root).and_then(|_| {
            absent(fs::remove_file(&draft))?;
            symlink(Path::new("..").join(&self.name), &draft)?;
            fs::rename(&draft, link(&self.root, tenant))?;
            File::open(private(&self.root))?.sync_all()
        });
        made.map(|()| true).map_err(|error| self.failure(&error))
    }

    /// Takes the link away, if it leads here.
    pub fn unlink(&self, tenant: TenantId) -> Result<(), Failure> {
        if linked(&self.root, tenant).as_deref() != Some(&*self.name) {
            return Ok(());
        }
        absent(fs::remove_file(link(&self.root, tenant))).map_err(|error| self.failure(&error))
    }

    fn private(&self, word: &str) -> PathBuf {
        private(&self.root).join(format!("{}.{word}", self.resource))
    }

    /// What an error of the file system means here.
    pub fn failure(&self, error: &io::Error) -> Failure {
        failure(&self.root, error)
    }
}

/// Name of the folder that is a tenant's.
pub fn linked(root: &Path, tenant: TenantId) -> Option<String> {
    fs::read_link(link(root, tenant)).ok()?.file_name()?.to_str().map(str::to_owned)
}

fn link(root: &Path, tenant: TenantId) -> PathBuf {
    private(root).join(tenant.to_string())
}

/// The folder for what is not a tenant's.
pub fn private(root: &Path) -> PathBuf {
    root.join(PRIVATE)
}

/// The folder for what is not a tenant's; makes it, and the one around it, if they are missing.
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

/// The names below `root`, in order, without the private ones.
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

/// Shows that folders can be made and renamed below `root`.
pub fn probe(root: &Path) -> Result<(), Failure> {
    let tried = private_folder(root).and_then(|folder| {
        let probe = Builder::new().prefix("probe").tempdir_in(folder)?;
        write(&probe.path().join("file"), b"")?;
        probe.close()
    });
    tried.map_err(|error| failure(root, &error))
}

/// Writes a file that readers see as a whole, as it was or as it will be; it may be read by its owner alone.
pub fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().ok_or(ErrorKind::InvalidInput)?;
    let mut draft = Builder::new().prefix(".draft").tempfile_in(folder)?;
    draft.write_all(bytes)?;
    draft.as_file().sync_all()?;
    draft.persist(file).map_err(|refused| refused.error)?;
    File::open(folder)?.sync_all()
}

/// What an error of the file system below `root` means. Disks and folders can come back: all of it is worth another
/// attempt.
pub fn failure(root: &Path, error: &io::Error) -> Failure {
    let root = root.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Failure::retryable("disk_full", format!("there is no room left in {root}: free some"))
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Failure::retryable(
            "read_only",
            format!("{root} cannot be written: let the user of this process write there"),
        ),
        _ => Failure::retryable("cannot_open", format!("the folder {root} cannot be used: {error}")),
    }
}

fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// How much is in a folder, at any depth.
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

/// Brings a folder with all that is in it to the disk.
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

    fn place(root: &Path) -> Place {
        Place::new(root, "thing", ResourceId::new()).unwrap()
    }

    fn fill(place: &Place, text: &str) {
        fs::write(place.draft().unwrap().join("file"), text).unwrap();
    }

    #[test]
    fn no_name_leads_elsewhere() {
        let long = "a".repeat(201);
        for bad in ["", ".", "..", "../x", "a/b", "/etc", "a\0b", ".tenantry", "ä", "a\\b", &long] {
            let failure = Place::new(Path::new("/x"), bad, ResourceId::new()).unwrap_err();
            assert_eq!(failure.code, "bad_name", "{bad:?}");
        }
    }

    #[test]
    fn whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let (one, two) = (place(&root), place(&root));
        fill(&one, "cut off");
        fill(&one, "one");
        assert!(!one.exists().unwrap());
        assert!(one.has_remains().unwrap() && one.publish().unwrap() && !one.has_remains().unwrap());
        fill(&two, "two");
        assert!(!two.publish().unwrap(), "the name is taken");
        assert_eq!(fs::read_to_string(one.folder().join("file")).unwrap(), "one");
        fill(&one, "three");
        one.replace().unwrap();
        assert_eq!(fs::read_to_string(one.folder().join("file")).unwrap(), "three");
        assert_eq!(one.remove().unwrap(), Size { files: 1, bytes: 5 });
        assert_eq!(one.remove().unwrap(), Size::default());
        assert_eq!(fs::read_dir(root.join(PRIVATE)).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn one_folder_is_the_tenants() {
        let dir = tempfile::tempdir().unwrap();
        let tenant = TenantId::new();
        let one = place(dir.path());
        let two = Place::new(dir.path(), "other", ResourceId::new()).unwrap();
        for place in [&one, &two] {
            fill(place, "");
            place.publish().unwrap();
        }
        assert!(one.link(tenant).unwrap() && one.link(tenant).unwrap());
        assert!(!two.link(tenant).unwrap());
        two.unlink(tenant).unwrap();
        assert_eq!(linked(dir.path(), tenant).as_deref(), Some("thing"));
        one.remove().unwrap();
        assert!(two.link(tenant).unwrap(), "a link that leads nowhere is no obstacle");
        assert_eq!(names(dir.path()).unwrap(), ["other"]);
    }

    #[test]
    fn a_root_that_cannot_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, "").unwrap();
        for failure in [probe(&blocked).unwrap_err(), place(&blocked).draft().unwrap_err()] {
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
