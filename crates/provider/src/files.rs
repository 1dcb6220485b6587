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
        if !path.split('/').all(is_plain) {
            return Err(Failure::invalid(
                "bad_name",
                format!("`{path}` is not a file name; use letters, digits, `.`, `_` and `-`"),
            ));
        }
        match self {
            Self::Shipped(files) => {
                Ok(files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned()))
            }
            Self::Folder(folder) => match std::fs::read_to_string(folder.join(path)) {
                Ok(text) => Ok(Some(text)),
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
        let mut names: Vec<String> = match self {
            Self::Shipped(files) => files
                .iter()
                .filter_map(|(name, _)| name.strip_prefix(folder)?.strip_prefix('/'))
                .map(str::to_owned)
                .collect(),
            Self::Folder(root) => {
                let path = root.join(folder);
                let entries = match std::fs::read_dir(&path) {
                    Ok(entries) => entries,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                    Err(error) => return Err(unreadable(&path, &error)),
                };
                let mut names = Vec::new();
                for entry in entries {
                    let entry = entry.map_err(|error| unreadable(&path, &error))?;
                    if entry.path().is_file() {
                        names.push(entry.file_name().to_string_lossy().into_owned());
                    }
                }
                names
            }
        };
        names.sort();
        Ok(names)
    }
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
