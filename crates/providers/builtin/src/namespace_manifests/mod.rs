//! Writes Kubernetes manifests to a folder for each namespace, for GitOps. This file has the provider's verbs.
//! Connects to no cluster, and changes no folder with another owner tag.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;
mod objects;
mod quantity;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::Failure;

pub use config::{Config, Settings};
use objects::Files;
pub use quantity::Quantity;
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::resource_folder::{self, ResourceFolder};
use tenantry_provider::resource_locks::{ResourceLocks, blocking};
use tenantry_provider::settings;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Ownership, Provider, Removed, Spec};

/// The type, and the name of its default instance.
const NAME: &str = "manifests";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Namespace,
    about: "Kubernetes manifests in a folder, for a GitOps tool",
    parts: &[""],
    always: true,
    schema: settings::schema::<Config>,
    defaults: |context| json!({ "folder": context.path("manifests") }),
    check: factory::no_check,
    build: |context, config| {
        Box::pin(async move {
            Ok(factory::one(NamespaceManifests::new(factory::config(config)?).named(&context.name)))
        })
    },
};

/// The provider.
pub struct NamespaceManifests {
    name: Arc<str>,
    config: Config,
    locks: ResourceLocks,
}

impl NamespaceManifests {
    /// Touches no file.
    pub fn new(config: Config) -> Self {
        Self { name: NAME.into(), config, locks: ResourceLocks::default() }
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    fn folder_of(&self, spec: &Spec) -> Result<ResourceFolder, Failure> {
        objects::check_name(&spec.name)?;
        ResourceFolder::new(&self.config.folder, &spec.name, spec.resource)
    }
}

fn fingerprint(files: &Files) -> String {
    let mut hash = Sha256::new();
    for (name, text) in files {
        for part in [name, text] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
    }
    hex::encode(hash.finalize())
}

#[async_trait]
impl Provider for NamespaceManifests {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Namespace
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<Settings>()
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        objects::check_name(name).map_err(|failure| failure.message)
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        let faults = match settings::check(given) {
            Ok(settings) => objects::faults(&settings),
            Err(faults) => return faults,
        };
        faults.into_iter().map(|(path, message)| Fault { path: path.to_owned(), message }).collect()
    }

    async fn ensure(&self, _: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let settings: Settings = settings::of(spec)?;
        let (target, claim) = (self.folder_of(spec)?, spec.claim.clone());
        let files = objects::files(spec, &settings)?;
        let names: Vec<String> = files.keys().cloned().collect();
        self.locks.block(spec.resource, move || client::put(&target, &files, &claim)).await?;
        let outputs = json!({
            "namespace": spec.name,
            "files": names,
            "cpu": settings.cpu.0,
            "memory": settings.memory.0,
            "storage": settings.storage.0,
            "pods": settings.pods,
        });
        Ok(Ensured { outputs, writes: Vec::new() })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let wanted = objects::files(spec, &settings::of(spec)?)?;
        let (target, claim) = (self.folder_of(spec)?, spec.claim.clone());
        blocking(move || {
            Ok(match client::look(&target, &claim)? {
                Ownership::Absent => Observed::absent_unless(target.has_remains()?),
                Ownership::Foreign => Observed::Foreign,
                Ownership::Own(files) => Observed::present(files == wanted, None, fingerprint(&files)),
            })
        })
        .await
    }

    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let (target, claim) = (self.folder_of(spec)?, spec.claim.clone());
        let removed = self.locks.block(spec.resource, move || match client::look(&target, &claim)? {
            Ownership::Own(_) => target.remove(),
            Ownership::Absent | Ownership::Foreign => {
                target.sweep().map(|()| resource_folder::Size::default())
            }
        });
        let receipt = json!({ "namespace": spec.name, "files": removed.await?.files });
        Ok(Removed { receipt, writes: Vec::new() })
    }

    async fn probe(&self) -> Result<(), Failure> {
        let root = self.config.folder.clone();
        blocking(move || resource_folder::probe(&root)).await
    }
}
