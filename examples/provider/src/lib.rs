//! A third party's provider: a JSON file for each tenant, in a folder that another system watches.
//! Rejects a file that has another owner tag.
//!
//! - **Content**: `NAME.json` with the owner tag, the tenant's id, slug, plan and region, the outputs of the steps that
//!   this one needs, and the step's `data`. No personal data.
//! - **Whole or not at all**: it is written under another name, synced, and renamed. A file with other content is written
//!   again; one with another owner tag, or without any, fails with `name_taken` and is not touched.
//! - **Removal** deletes the file.
//! - **Failures**: a full, missing or read-only folder is retryable; a name that could leave the folder is invalid.
//!
//! A server that should have it lists [`FACTORY`] in `crates/server/src/providers.rs`. A template then has the step
//!
//! ```yaml
//! crm: { kind: custom, provider: handoff, with: { data: { tier: 2 } }, needs: [database] }
//! ```
//!
//! `tests/conformance.rs` runs the contract's suite over it.

mod file;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use async_trait::async_trait;
use file::Note;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tenantry_model::Failure;
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::resource_locks::{ResourceLocks, blocking};
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Ownership, Provider, Removed, Spec};
use tenantry_provider::{resource_folder, settings};

/// The type, and the name of its default instance.
const NAME: &str = "handoff";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Custom,
    about: "A JSON file for each tenant, in a folder that another system watches",
    parts: &[""],
    always: true,
    schema: settings::schema::<Config>,
    defaults: |context| json!({ "folder": context.path("handoff") }),
    check: factory::no_check,
    build: |context, config| {
        Box::pin(async move { Ok(factory::one(Handoff::new(factory::config(config)?).named(&context.name))) })
    },
};

/// Where the files are.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder that the other system watches. It is made if it is missing.
    pub folder: PathBuf,
}

/// What a step says under `with`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What else the other system should know.
    #[serde(default)]
    pub data: Map<String, Value>,
}

/// The provider.
pub struct Handoff {
    name: String,
    config: Config,
    resource_locks: ResourceLocks,
}

impl Handoff {
    /// Files in this folder. Touches none of them.
    pub fn new(config: Config) -> Self {
        Self { name: NAME.to_owned(), config, resource_locks: ResourceLocks::default() }
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    fn note(&self, spec: &Spec) -> Result<Note, Failure> {
        let settings: Settings = settings::of(spec)?;
        Note::new(&self.config.folder, spec, settings.data)
    }
}

fn name_taken() -> Failure {
    Failure::fatal("name_taken", "a file with this name has another owner; it was not touched")
}

#[async_trait]
impl Provider for Handoff {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Custom
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<Settings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        settings::check::<Settings>(given).err().unwrap_or_default()
    }

    async fn ensure(&self, _: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let note = self.note(spec)?;
        let outputs = json!({ "file": note.file() });
        let write = move || match note.look()? {
            Ownership::Foreign => Err(name_taken()),
            Ownership::Own(true) => Ok(()),
            Ownership::Absent | Ownership::Own(false) => note.write(),
        };
        self.resource_locks.block(spec.resource, write).await?;
        Ok(Ensured { outputs, writes: Vec::new() })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let note = self.note(spec)?;
        self.resource_locks
            .block(spec.resource, move || {
                Ok(match note.look()? {
                    Ownership::Absent => Observed::Absent,
                    Ownership::Foreign => Observed::Foreign,
                    Ownership::Own(whole) => Observed::present(whole, None, note.fingerprint()?),
                })
            })
            .await
    }

    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let note = self.note(spec)?;
        let remove = move || match note.look()? {
            Ownership::Own(_) => note.remove().map(|()| 1),
            Ownership::Absent | Ownership::Foreign => Ok(0),
        };
        let files = self.resource_locks.block(spec.resource, remove).await?;
        Ok(Removed { receipt: json!({ "files": files }), writes: Vec::new() })
    }

    async fn probe(&self) -> Result<(), Failure> {
        let folder = self.config.folder.clone();
        blocking(move || resource_folder::probe(&folder)).await
    }
}
