//! Flags and settings of a tenant as one row of the registry. Does no I/O; returns the row to write.
//! Overwrites nothing that the tenant has changed.
//!
#![doc = include_str!("docs.md")]

mod config;
mod transfer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::{Failure, Write, columns};

pub use config::Config;
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::kinds::config::ConfigSettings as Settings;
use tenantry_provider::settings;
use tenantry_provider::transfer::Transfer;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};

/// The setting that holds the plan's limits; no template or request can set it.
pub const QUOTAS: &str = "quotas";
/// Longest name of a flag or a setting, in bytes.
const MAX_KEY: usize = 128;

/// The type, and the name of its default instance.
const NAME: &str = "builtin_config";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Config,
    about: "Flags and settings in the registry",
    parts: &[""],
    always: true,
    schema: settings::schema::<Config>,
    defaults: factory::no_defaults,
    check: factory::no_check,
    build: |context, config| {
        Box::pin(async move {
            Ok(factory::one(ConfigBuiltin::new(factory::config(config)?).named(&context.name)))
        })
    },
};

/// The provider.
#[derive(Clone, Debug)]
pub struct ConfigBuiltin {
    name: Arc<str>,
}

impl ConfigBuiltin {
    /// With this configuration.
    pub fn new(_: Config) -> Self {
        Self { name: NAME.into() }
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }
}

impl Default for ConfigBuiltin {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

/// What a new tenant begins with.
fn defaults(settings: Settings) -> (Map<String, Value>, Map<String, Value>) {
    let mut values = settings.settings;
    values.insert(QUOTAS.to_owned(), Value::Object(settings.quotas));
    (settings.flags, values)
}

/// Adds what is missing; false if nothing is.
fn complete(there: &mut Map<String, Value>, defaults: Map<String, Value>) -> bool {
    let before = there.len();
    for (key, value) in defaults {
        there.entry(key).or_insert(value);
    }
    there.len() > before
}

async fn row(context: &Context, spec: &Spec) -> Result<Option<Value>, Failure> {
    Ok(context.rows.find("configs", &[("tenant_id", json!(spec.tenant.id))]).await?.into_iter().next())
}

fn is_ours(row: &Value, spec: &Spec) -> bool {
    row.get("resource_id") == Some(&json!(spec.resource))
}

fn map(row: &Value, column: &str) -> Map<String, Value> {
    row.get(column).and_then(Value::as_object).cloned().unwrap_or_default()
}

#[async_trait]
impl Provider for ConfigBuiltin {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Config
    }

    fn transactional(&self) -> bool {
        true
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<settings::NoSettings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        let settings: Settings = match settings::check(given) {
            Ok(settings) => settings,
            Err(faults) => return faults,
        };
        let keys = settings
            .flags
            .keys()
            .map(|key| ("flags", key))
            .chain(settings.settings.keys().map(|key| ("settings", key)));
        let mut faults: Vec<Fault> = keys
            .filter(|(_, key)| key.is_empty() || key.len() > MAX_KEY || key.chars().any(char::is_control))
            .map(|(path, _)| Fault {
                path: path.to_owned(),
                message: format!("names must have 1 to {MAX_KEY} characters and no control characters"),
            })
            .collect();
        if settings.settings.contains_key(QUOTAS) {
            let message = "comes from the plan and cannot be set".to_owned();
            faults.push(Fault { path: format!("settings.{QUOTAS}"), message });
        }
        faults
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let (flags, values) = defaults(settings::of(spec)?);
        let outputs = json!({ "namespace": spec.name });
        let writes = match row(context, spec).await? {
            Some(row) if !is_ours(&row, spec) => {
                return Err(Failure::fatal(
                    "name_taken",
                    "the namespace belongs to another resource; it was not touched",
                ));
            }
            Some(row) => {
                let (mut has_flags, mut has_values) = (map(&row, "flags"), map(&row, "settings"));
                let more_flags = complete(&mut has_flags, flags);
                if complete(&mut has_values, values) || more_flags {
                    let set = columns! {
                        "flags": has_flags, "settings": has_values, "updated_at": context.now,
                    };
                    vec![Write::update("configs", columns! { "tenant_id": spec.tenant.id }, set)]
                } else {
                    Vec::new()
                }
            }
            None => vec![Write::insert_absent(
                "configs",
                columns! {
                "tenant_id": spec.tenant.id, "namespace": spec.name, "resource_id": spec.resource,
                "flags": flags, "settings": values, "updated_at": context.now },
            )],
        };
        Ok(Ensured { outputs, writes })
    }

    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let Some(row) = row(context, spec).await? else { return Ok(Observed::Absent) };
        if !is_ours(&row, spec) {
            return Ok(Observed::Foreign);
        }
        let (flags, values) = defaults(settings::of(spec)?);
        let (has_flags, has_values) = (map(&row, "flags"), map(&row, "settings"));
        let healthy = flags.keys().all(|key| has_flags.contains_key(key))
            && values.keys().all(|key| has_values.contains_key(key));
        let seen = json!([has_flags, has_values]).to_string();
        Ok(Observed::present(healthy, None, hex::encode(Sha256::digest(seen))))
    }

    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let ours = row(context, spec).await?.filter(|row| is_ours(row, spec));
        let count = |column| ours.as_ref().map_or(0, |row| map(row, column).len());
        let receipt =
            json!({ "namespace": spec.name, "flags": count("flags"), "settings": count("settings") });
        let writes =
            ours.iter().map(|_| Write::delete("configs", columns! { "tenant_id": spec.tenant.id })).collect();
        Ok(Removed { receipt, writes })
    }

    async fn probe(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn transfer(&self) -> Option<&dyn Transfer> {
        Some(self)
    }
}
