//! Reads and writes the folder of one namespace's manifests and checks its owner tag. All functions block.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use serde::Deserialize;
use tenantry_model::Failure;

use super::objects::{Files, NAMESPACE, OWNER};
use tenantry_provider::resource_folder::ResourceFolder;
use tenantry_provider::verbs::Ownership;

#[derive(Deserialize)]
struct Namespace {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

fn owner(text: &str) -> Option<String> {
    let namespace: Namespace = yaml_serde::from_str(text).ok()?;
    namespace.metadata.annotations.get(OWNER).cloned()
}

/// Reads the folder and compares its owner tag.
pub fn look(target: &ResourceFolder, claim: &str) -> Result<Ownership<Files>, Failure> {
    if !target.exists()? {
        return Ok(Ownership::Absent);
    }
    match fs::read(target.path().join(NAMESPACE)) {
        Ok(text) if owner(&String::from_utf8_lossy(&text)).as_deref() == Some(claim) => {}
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
            ) =>
        {
            return Err(target.failure(&error));
        }
        _ => return Ok(Ownership::Foreign),
    }
    read(target).map(Ownership::Own).map_err(|error| target.failure(&error))
}

/// Reads everything in the folder. An entry that is not a file counts as an empty file, so that the drift is
/// noticed.
fn read(target: &ResourceFolder) -> std::io::Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(target.path())? {
        let entry = entry?;
        let text = if entry.file_type()?.is_file() { fs::read(entry.path())? } else { Vec::new() };
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, String::from_utf8_lossy(&text).into_owned());
    }
    Ok(files)
}

/// Replaces the folder with these files in one step, so that readers see either the old or the new files.
/// Manual changes in the folder are lost. An error `name_taken` if the folder has another owner tag.
pub fn put(target: &ResourceFolder, files: &Files, claim: &str) -> Result<(), Failure> {
    let foreign = || {
        Failure::fatal(
            "name_taken",
            "the name is taken by manifests with another owner tag; nothing was changed",
        )
    };
    match look(target, claim)? {
        Ownership::Foreign => return Err(foreign()),
        Ownership::Own(there) if there == *files => return target.sweep(),
        Ownership::Own(_) => {
            draft(target, files)?;
            return target.replace();
        }
        Ownership::Absent => draft(target, files)?,
    }
    if target.publish()? {
        return Ok(());
    }
    match look(target, claim)? {
        Ownership::Foreign => Err(foreign()),
        // Another attempt changes the folder at the same time; the next attempt sees its result.
        _ => Err(Failure::retryable("cannot_open", "another attempt changed the manifests at the same time")),
    }
}

fn draft(target: &ResourceFolder, files: &Files) -> Result<(), Failure> {
    let folder = target.draft()?;
    let written = files.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text));
    // The files hold no secrets, and the tool that applies them may run as another user.
    let open = |()| fs::set_permissions(&folder, Permissions::from_mode(0o755));
    written.and_then(open).map_err(|error| target.failure(&error))
}
