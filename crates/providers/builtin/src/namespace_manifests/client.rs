//! The files of one namespace: whose they are, putting them there all at once, taking them away. All of it blocks.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use serde::Deserialize;
use tenantry_model::Failure;

use super::objects::{Files, NAMESPACE, OWNER};
use tenantry_provider::place::Place;

/// What is there under a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Something that is somebody else's.
    Foreign,
    /// The spec's own, with all that is in the folder.
    Ours(Files),
}

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

/// What is there, by the owner mark.
pub fn look(place: &Place, claim: &str) -> Result<Found, Failure> {
    if !place.exists()? {
        return Ok(Found::Nothing);
    }
    match fs::read(place.folder().join(NAMESPACE)) {
        Ok(text) if owner(&String::from_utf8_lossy(&text)).as_deref() == Some(claim) => {}
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
            ) =>
        {
            return Err(place.failure(&error));
        }
        _ => return Ok(Found::Foreign),
    }
    read(place).map(Found::Ours).map_err(|error| place.failure(&error))
}

/// Everything in the folder; what is no file counts as an empty one, so that it is noticed.
fn read(place: &Place) -> std::io::Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(place.folder())? {
        let entry = entry?;
        let text = if entry.file_type()?.is_file() { fs::read(entry.path())? } else { Vec::new() };
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, String::from_utf8_lossy(&text).into_owned());
    }
    Ok(files)
}

/// Puts the files there in one step: whoever reads sees the old ones or the new ones. What somebody has changed or added
/// in a folder of ours is gone then.
pub fn put(place: &Place, files: &Files, claim: &str) -> Result<(), Failure> {
    let foreign = || {
        Failure::fatal(
            "name_taken",
            "this name belongs to manifests with another owner mark; they were not touched",
        )
    };
    match look(place, claim)? {
        Found::Foreign => return Err(foreign()),
        Found::Ours(there) if there == *files => return place.sweep(),
        Found::Ours(_) => {
            draft(place, files)?;
            return place.replace();
        }
        Found::Nothing => draft(place, files)?,
    }
    if place.publish()? {
        return Ok(());
    }
    match look(place, claim)? {
        Found::Foreign => Err(foreign()),
        // Another attempt was faster, or somebody is at work: the next one sees what came of it.
        _ => Err(Failure::retryable("cannot_open", "the manifests were made or taken away at the same time")),
    }
}

fn draft(place: &Place, files: &Files) -> Result<(), Failure> {
    let folder = place.draft()?;
    let written = files.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text));
    // There are no secrets in it, and the tool that applies it may be another user's.
    let open = |()| fs::set_permissions(&folder, Permissions::from_mode(0o755));
    written.and_then(open).map_err(|error| place.failure(&error))
}
