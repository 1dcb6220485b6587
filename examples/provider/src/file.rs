//! The file of one resource: written as a whole, with its owner tag in it. All of it blocks; the caller runs it where
//! blocking is allowed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::Failure;

use tenantry_provider::files::is_plain;
use tenantry_provider::resource_folder;
use tenantry_provider::verbs::{Ownership, Spec};

/// Longest name in bytes, the ending not counted.
const MAX_NAME: usize = 200;

/// The file of a resource, with the content that its spec asks for.
pub(crate) struct Note {
    folder: PathBuf,
    file: PathBuf,
    owner: String,
    content: Value,
}

impl Note {
    /// The file of a resource. Refuses a name that could lead elsewhere.
    pub fn new(folder: &Path, spec: &Spec, data: Map<String, Value>) -> Result<Self, Failure> {
        if !is_plain(&spec.name) || spec.name.len() > MAX_NAME {
            let why = format!(
                "a file's name has up to {MAX_NAME} letters, digits, `.`, `_` and `-`, and no `.` in front"
            );
            return Err(Failure::invalid("bad_name", why));
        }
        let tenant = &spec.tenant;
        let content = json!({
            "owner": spec.claim,
            "tenant": { "id": tenant.id, "slug": tenant.slug, "plan": tenant.plan, "region": tenant.region },
            "inputs": spec.inputs,
            "data": data,
        });
        let file = folder.join(format!("{}.json", spec.name));
        Ok(Self { folder: folder.to_owned(), file, owner: spec.claim.clone(), content })
    }

    /// Path of the file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What is on the disk under its name; of an own file, whether its content is as the spec asks.
    pub fn look(&self) -> Result<Ownership<bool>, Failure> {
        let text = match fs::read(&self.file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ownership::Absent),
            text => text.map_err(|error| resource_folder::failure(&self.folder, &error))?,
        };
        let there: Value = serde_json::from_slice(&text).unwrap_or_default();
        Ok(match there.get("owner").and_then(Value::as_str) {
            Some(owner) if owner == self.owner => Ownership::Own(there == self.content),
            // A file without a readable owner tag belongs to something else.
            _ => Ownership::Foreign,
        })
    }

    /// Changes when the file does.
    pub fn fingerprint(&self) -> Result<String, Failure> {
        let text = fs::read(&self.file).map_err(|error| resource_folder::failure(&self.folder, &error))?;
        Ok(hex::encode(Sha256::digest(text)))
    }

    /// Writes it, and returns when it is on the disk.
    pub fn write(&self) -> Result<(), Failure> {
        let written = fs::create_dir_all(&self.folder)
            .and_then(|()| resource_folder::write(&self.file, self.content.to_string().as_bytes()));
        written.map_err(|error| resource_folder::failure(&self.folder, &error))
    }

    /// Removes it, and returns when that is on the disk.
    pub fn remove(&self) -> Result<(), Failure> {
        let removed = fs::remove_file(&self.file).and_then(|()| fs::File::open(&self.folder)?.sync_all());
        removed.map_err(|error| resource_folder::failure(&self.folder, &error))
    }
}
