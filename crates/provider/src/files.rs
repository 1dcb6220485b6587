//! Product files: migrations, seeds and mail templates, embedded in the binary or read from a folder of the
//! operator instead. Rejects names that could leave the folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tenantry_model::Failure;

/// Source of a provider's files.
#[derive(Clone, Debug)]
pub enum Files {
    /// Embedded in the binary: path and text.
    Shipped(&'static [(&'static str, &'static str)]),
    /// A folder.
    Folder(PathBuf),
}

macro_rules! shipped {
    ($folder:literal, $($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../templates/", $folder, "/", $path)))),*]
    };
}

impl Files {
    /// Folders of migrations: the operator's, or the embedded ones.
    pub fn migrations(folder: Option<&Path>) -> Self {
        Self::folder_or(folder, shipped!("migrations", "app/0001_init.sql", "postgres/app/0001_init.sql"))
    }

    /// Seeds by name and locale: the operator's, or the embedded ones.
    pub fn seeds(folder: Option<&Path>) -> Self {
        Self::folder_or(
            folder,
            shipped!(
                "seeds",
                "canary.yaml",
                "defaults/en.yaml",
                "defaults/de.yaml",
                "defaults/it.yaml",
                "defaults/hr.yaml",
            ),
        )
    }

    /// Mail templates by language: the operator's, or the embedded ones.
    pub fn mail(folder: Option<&Path>) -> Self {
        Self::folder_or(
            folder,
            shipped!(
                "mail",
                "en/welcome.txt",
                "de/welcome.txt",
                "it/welcome.txt",
                "hr/welcome.txt",
                "en/leaving.txt",
                "de/leaving.txt",
                "it/leaving.txt",
                "hr/leaving.txt"
            ),
        )
    }

    fn folder_or(folder: Option<&Path>, shipped: &'static [(&'static str, &'static str)]) -> Self {
        folder.map_or(Self::Shipped(shipped), |folder| Self::Folder(folder.to_owned()))
    }

    /// Reads a file; none if it does not exist. The parts of `path` are separated by `/`.
    pub fn read(&self, path: &str) -> Result<Option<String>, Failure> {
        let bytes = self.bytes(path)?;
        bytes.map(String::from_utf8).transpose().map_err(|_| {
            Failure::fatal("unreadable", format!("`{path}` is not UTF-8: save it in that encoding"))
        })
    }

    /// Reads a file whose encoding the caller checks; none if it does not exist.
    pub fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        if !path.split('/').all(is_plain) {
            return Err(Failure::invalid(
                "bad_name",
                format!("`{path}` is not a file name; use letters, digits, `.`, `_` and `-`"),
            ));
        }
        match self {
            Self::Shipped(files) => {
                Ok(files.iter().find(|(name, _)| *name == path).map(|(_, text)| text.as_bytes().to_owned()))
            }
            Self::Folder(folder) => match std::fs::read(folder.join(path)) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(unreadable(&folder.join(path), &error)),
            },
        }
    }

    /// Names of the folders, in alphabetical order.
    pub fn folders(&self) -> Result<Vec<String>, Failure> {
        let names: BTreeSet<String> = match self {
            Self::Shipped(files) => {
                files.iter().filter_map(|(name, _)| Some(name.split_once('/')?.0.to_owned())).collect()
            }
            Self::Folder(root) => {
                let entries = std::fs::read_dir(root).map_err(|error| unreadable(root, &error))?;
                let folders = entries.flatten().filter(|entry| entry.path().is_dir());
                folders
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .filter(|name| is_plain(name))
                    .collect()
            }
        };
        Ok(names.into_iter().collect())
    }

    /// Names of the files in a folder, in alphabetical order; empty if the folder does not exist.
    pub fn list(&self, folder: &str) -> Result<Vec<String>, Failure> {
        let entries = self.entries(folder)?;
        Ok(entries.into_iter().filter(|entry| !entry.is_folder).map(|entry| entry.name).collect())
    }

    /// Files and folders in a folder, in alphabetical order; empty if it does not exist. `folder` is a path of
    /// the program, not of a user.
    pub fn entries(&self, folder: &str) -> Result<Vec<Entry>, Failure> {
        let mut entries: Vec<Entry> = match self {
            Self::Shipped(files) => {
                let inside =
                    files.iter().filter_map(|(name, _)| name.strip_prefix(folder)?.strip_prefix('/'));
                let entry = |path: &str| match path.split_once('/') {
                    Some((folder, _)) => Entry { name: folder.to_owned(), is_folder: true },
                    None => Entry { name: path.to_owned(), is_folder: false },
                };
                inside.map(entry).collect()
            }
            Self::Folder(root) => {
                let path = root.join(folder);
                let found = match std::fs::read_dir(&path) {
                    Ok(found) => found,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                    Err(error) => return Err(unreadable(&path, &error)),
                };
                let mut entries = Vec::new();
                for entry in found {
                    let entry = entry.map_err(|error| unreadable(&path, &error))?;
                    let name = entry.file_name().to_string_lossy().into_owned();
                    entries.push(Entry { name, is_folder: entry.path().is_dir() });
                }
                entries
            }
        };
        entries.sort();
        entries.dedup();
        Ok(entries)
    }
}

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Name without the path.
    pub name: String,
    /// Whether the entry is a folder.
    pub is_folder: bool,
}

/// Whether a name is a plain file name: letters, digits, `.`, `_` and `-`, not starting with `.`.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::retryable("unreadable", format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_files_and_the_folder_are_equal() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../templates/seeds");
        let (shipped, own) = (Files::seeds(None), Files::seeds(Some(&folder)));
        assert_eq!(shipped.list("defaults").unwrap(), ["de.yaml", "en.yaml", "hr.yaml", "it.yaml"]);
        assert_eq!(
            shipped.list("defaults").unwrap(),
            own.list("defaults").unwrap(),
            "a file is missing in the list of embedded files"
        );
        assert_eq!(shipped.read("defaults/it.yaml").unwrap(), own.read("defaults/it.yaml").unwrap());
        for files in [shipped, own] {
            assert_eq!(files.read("defaults/fr.yaml").unwrap(), None);
            assert!(files.list("nothing").unwrap().is_empty());
        }
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let files = Files::Folder("/etc".into());
        for bad in ["../etc/passwd", "..", "a/../passwd", "/etc/passwd", "a//b", "", "a\0b", ".hidden", "ä"]
        {
            assert_eq!(files.read(bad).unwrap_err().code, "bad_name", "{bad:?}");
        }
    }
}
