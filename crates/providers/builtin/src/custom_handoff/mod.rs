//! A JSON file for each tenant, for systems that watch a folder. This file is the provider's verbs.
//! Refuses a file that is somebody else's.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_model::Failure;

use client::{Found, Note};
pub use config::{Config, Settings};
use tenantry_provider::lanes::Lanes;
use tenantry_provider::place;
use tenantry_provider::settings;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};

/// The provider.
#[derive(Default)]
pub struct CustomHandoff {
    config: Config,
    lanes: Lanes,
}

impl CustomHandoff {
    /// Files in this folder. Touches none of them.
    pub fn new(config: Config) -> Self {
        Self { config, lanes: Lanes::default() }
    }

    fn note(&self, spec: &Spec) -> Result<Note, Failure> {
        let settings: Settings = settings::of(spec)?;
        Note::new(&self.config.folder, spec, settings.data)
    }
}

fn name_taken() -> Failure {
    Failure::fatal("name_taken", "a file of somebody else has this name; it was not touched")
}

#[async_trait]
impl Provider for CustomHandoff {
    fn name(&self) -> &'static str {
        "handoff"
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
            Found::Foreign => Err(name_taken()),
            Found::Ours { whole: true } => Ok(()),
            Found::Nothing | Found::Ours { whole: false } => note.write(),
        };
        self.lanes.block(spec.resource, write).await?;
        Ok(Ensured { outputs, writes: Vec::new() })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let note = self.note(spec)?;
        self.lanes
            .block(spec.resource, move || {
                Ok(match note.look()? {
                    Found::Nothing => Observed::Absent,
                    Found::Foreign => Observed::Foreign,
                    Found::Ours { whole } => Observed::present(whole, None, note.fingerprint()?),
                })
            })
            .await
    }

    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let note = self.note(spec)?;
        let remove = move || match note.look()? {
            Found::Ours { .. } => note.remove().map(|()| 1),
            Found::Nothing | Found::Foreign => Ok(0),
        };
        let files = self.lanes.block(spec.resource, remove).await?;
        Ok(Removed { receipt: json!({ "files": files }), writes: Vec::new() })
    }

    async fn probe(&self) -> Result<(), Failure> {
        let folder = self.config.folder.clone();
        tenantry_provider::lanes::blocking(move || place::probe(&folder)).await
    }
}
