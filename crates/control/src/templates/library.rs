//! The templates of this process: those shipped in the binary, overlaid by a folder of the user's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tenantry_model::ErrorCode;

use tenantry_provider::Registry;

use super::{Template, load};
use crate::error::{Error, FieldError, Result};

/// Shipped with the binary: file name and text.
const SHIPPED: [(&str, &str); 3] = [
    ("starter.yaml", include_str!("../../../../templates/starter.yaml")),
    ("growth.yaml", include_str!("../../../../templates/growth.yaml")),
    ("enterprise.yaml", include_str!("../../../../templates/enterprise.yaml")),
];

/// Templates by name and version.
#[derive(Clone, Debug, Default)]
pub struct Library {
    by_name: BTreeMap<String, BTreeMap<u32, Arc<Template>>>,
}

impl Library {
    /// The shipped templates and those in `folder` (`*.yaml`, `*.yml`). Every faulty file is named in the error.
    pub fn open(folder: Option<&Path>, providers: &Registry) -> Result<Self> {
        let mut texts: Vec<(String, String)> =
            SHIPPED.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        if let Some(folder) = folder {
            texts.extend(read_folder(folder)?);
        }
        let mut library = Self::default();
        let mut faults = Vec::new();
        for (file, text) in texts {
            match load(&text, providers) {
                Ok(loaded) => library.add(loaded.template),
                Err(error) => faults.extend(
                    error
                        .errors
                        .into_iter()
                        .map(|e| FieldError::new(format!("{file}: {}", e.path), e.message)),
                ),
            }
        }
        if faults.is_empty() { Ok(library) } else { Err(Error::invalid(ErrorCode::TemplateInvalid, faults)) }
    }

    /// Adds a template; one with the same name and version is replaced.
    pub fn add(&mut self, template: Template) {
        let versions = self.by_name.entry(template.template.clone()).or_default();
        versions.insert(template.version, Arc::new(template));
    }

    /// The newest version of a template.
    pub fn latest(&self, name: &str) -> Option<&Arc<Template>> {
        self.by_name.get(name)?.values().next_back()
    }

    /// One version of a template.
    pub fn version(&self, name: &str, version: u32) -> Option<&Arc<Template>> {
        self.by_name.get(name)?.get(&version)
    }

    /// The newest version of a template before this one.
    pub fn before(&self, name: &str, version: u32) -> Option<&Arc<Template>> {
        self.by_name.get(name)?.range(..version).next_back().map(|(_, template)| template)
    }

    /// Every version of every template, by name, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Template>> {
        self.by_name.values().flat_map(BTreeMap::values)
    }
}

fn read_folder(folder: &Path) -> Result<Vec<(String, String)>> {
    let fault = |path: &Path, why: &std::io::Error| {
        Error::invalid(
            ErrorCode::TemplateInvalid,
            vec![FieldError::new(path.display().to_string(), format!("cannot be read: {why}"))],
        )
    };
    let entries = std::fs::read_dir(folder).map_err(|why| fault(folder, &why))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml"));
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).map_err(|why| fault(&path, &why))?;
            Ok((path.display().to_string(), text))
        })
        .collect()
}
