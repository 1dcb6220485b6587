//! The built-in configuration provider: feature flags and settings of a tenant, kept in the registry as one row under the
//! namespace `tenant.{id}`. It performs no I/O: it returns rows, which are written in the transaction that records its step.
//!
//! - A new tenant gets the template's values, the plan's features as flags, and the plan's quotas as the setting `quotas`.
//! - A repeated step adds missing values and keeps what the tenant has changed since.
//! - **Archives**: `config.json` with flags and settings. Flags and quotas are exported and not loaded.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::{Failure, Write, columns};
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::kinds::config::ConfigSettings;
use tenantry_provider::settings::{self, NoSettings};
use tenantry_provider::transfer::Transfer;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};
use tenantry_store::entity::config::Model;
use tenantry_store::table::{delete, insert_absent};

use super::{QUOTAS, complete, defaults, map, row};

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
    schema: settings::schema::<NoSettings>,
    defaults: factory::no_defaults,
    check: factory::no_check,
    build: |context, _| Box::pin(async move { Ok(factory::one(ConfigBuiltin::named(&context.name))) }),
};

/// The provider.
#[derive(Clone, Debug)]
pub struct ConfigBuiltin {
    name: Arc<str>,
}

impl ConfigBuiltin {
    /// With this name.
    pub fn named(name: &str) -> Self {
        Self { name: name.into() }
    }
}

impl Default for ConfigBuiltin {
    fn default() -> Self {
        Self::named(NAME)
    }
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
        settings::schema::<NoSettings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        let settings: ConfigSettings = match settings::check(given) {
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
            Some((_, false)) => {
                return Err(Failure::fatal(
                    "name_taken",
                    "the namespace belongs to another resource; it was not touched",
                ));
            }
            Some((row, true)) => {
                let (mut has_flags, mut has_values) = (map(row.flags), map(row.settings));
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
            None => vec![insert_absent(&Model {
                tenant_id: spec.tenant.id.to_string(),
                namespace: spec.name.clone(),
                resource_id: spec.resource.to_string(),
                flags: Value::Object(flags),
                settings: Value::Object(values),
                updated_at: context.now.into(),
            })],
        };
        Ok(Ensured { outputs, writes })
    }

    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let Some((row, own)) = row(context, spec).await? else { return Ok(Observed::Absent) };
        if !own {
            return Ok(Observed::Foreign);
        }
        let (flags, values) = defaults(settings::of(spec)?);
        let (has_flags, has_values) = (map(row.flags), map(row.settings));
        let healthy = flags.keys().all(|key| has_flags.contains_key(key))
            && values.keys().all(|key| has_values.contains_key(key));
        let seen = json!([has_flags, has_values]).to_string();
        Ok(Observed::present(healthy, None, hex::encode(Sha256::digest(seen))))
    }

    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let own = row(context, spec).await?.filter(|(_, own)| *own).map(|(row, _)| row);
        let writes = own.iter().map(delete).collect();
        let (flags, values) =
            own.map(|row| (map(row.flags).len(), map(row.settings).len())).unwrap_or_default();
        let receipt = json!({ "namespace": spec.name, "flags": flags, "settings": values });
        Ok(Removed { receipt, writes })
    }

    async fn probe(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn transfer(&self) -> Option<&dyn Transfer> {
        Some(self)
    }
}
