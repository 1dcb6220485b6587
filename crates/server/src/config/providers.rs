//! Reads the tables `[providers.NAME]` of the configuration, reports every fault with its path, and builds
//! the providers of each instance.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use serde_json::{Map, Value, json};
use tenantry_control::{FieldError, shape};
use tenantry_model::Failure;
use tenantry_provider::factory::{TYPE, is_name};
use tenantry_provider::{BuildContext, OwnDatabases, ProviderFactory, Registry};

use super::Config;
use crate::providers::FACTORIES;

/// Settings that give the location at which an instance creates its resources.
const LOCATION_KEYS: [&str; 3] = ["folder", "file", "url"];

/// One instance of a provider type.
struct Instance<'a> {
    factory: &'a ProviderFactory,
    context: BuildContext,
    /// Settings in the table of the instance, without the type.
    given: Map<String, Value>,
}

impl Instance<'_> {
    /// The settings of the table, with defaults for those that it leaves out.
    fn config(&self) -> Value {
        let mut config = (self.factory.defaults)(&self.context);
        super::overlay::merge(&mut config, Value::Object(self.given.clone()));
        config
    }

    fn faults(&self) -> Vec<FieldError> {
        let config = self.config();
        let shape = shape::faults(&(self.factory.schema)(), &config);
        let meaning = (self.factory.check)(&config);
        let meaning = meaning.into_iter().map(|fault| FieldError::new(fault.path, fault.message));
        let all = shape.into_iter().chain(meaning);
        all.map(|fault| FieldError::new(at(&self.context.name, &fault.path), fault.message)).collect()
    }
}

/// Path of a setting of an instance; with an empty `path`, that of the instance's table.
fn at(instance: &str, path: &str) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    format!("providers.{instance}{dot}{path}")
}

/// The part of [`BuildContext`] that all instances of a process share: everything but the name.
fn shared(data_dir: PathBuf, url: &str, own_databases: Vec<String>, files: &Value) -> BuildContext {
    let folder = |key: &str| files.get(key).and_then(Value::as_str).map(PathBuf::from);
    BuildContext {
        data_dir,
        public_url: url.to_owned(),
        own_databases: OwnDatabases(own_databases),
        migrations: folder("migrations"),
        seeds: folder("seeds"),
        mail: folder("mail"),
        ..BuildContext::new("", "".as_ref())
    }
}

/// The configured instances, in the order of their types, with each type's default instance first; and the
/// faults of the tables.
fn instances<'a>(
    factories: &'a [ProviderFactory],
    shared: &BuildContext,
    tables: &Map<String, Value>,
) -> (Vec<Instance<'a>>, Vec<FieldError>) {
    let mut faults: Vec<FieldError> = Vec::new();
    let mut named: BTreeMap<&str, Vec<Instance<'a>>> = BTreeMap::new();
    let find = |type_name: &str| factories.iter().find(|factory| factory.type_name == type_name);
    let known = || Vec::from_iter(factories.iter().map(|factory| factory.type_name)).join(", ");
    let context = |name: &str, factory: &ProviderFactory| BuildContext {
        name: name.to_owned(),
        is_default: name == factory.type_name,
        ..shared.clone()
    };
    for (name, table) in tables {
        let mut fault = |path: &str, message: String| faults.push(FieldError::new(at(name, path), message));
        let Some(table) = table.as_object() else {
            fault("", "must be a table".to_owned());
            continue;
        };
        if !is_name(name) {
            fault("", "must be named with up to 40 of a-z, 0-9 and _, beginning with a letter".to_owned());
            continue;
        }
        let mut given = table.clone();
        let own = find(name);
        let factory = match (given.remove(TYPE), own) {
            (None, Some(factory)) => factory,
            (None, None) => {
                let message =
                    format!("is not the name of a provider type: set its `{TYPE}` to one of {}", known());
                fault("", message);
                continue;
            }
            (Some(Value::String(type_name)), own) => match (find(&type_name), own) {
                (None, _) => {
                    fault(TYPE, format!("is not a provider type; the types are {}", known()));
                    continue;
                }
                (Some(factory), Some(own)) if factory.type_name != own.type_name => {
                    let message = "differs from the type that has this name: rename the instance";
                    fault(TYPE, message.to_owned());
                    continue;
                }
                (Some(factory), _) => factory,
            },
            (Some(_), _) => {
                fault(TYPE, format!("must be a string, one of {}", known()));
                continue;
            }
        };
        let context = context(name, factory);
        named.entry(factory.type_name).or_default().push(Instance { factory, context, given });
    }
    let mut all = Vec::new();
    for factory in factories {
        let mut own = named.remove(factory.type_name).unwrap_or_default();
        if factory.always && !own.iter().any(|instance| instance.context.is_default) {
            let context = context(factory.type_name, factory);
            own.push(Instance { factory, context, given: Map::new() });
        }
        own.sort_by_key(|instance| !instance.context.is_default);
        all.extend(own);
    }
    let mut providers: BTreeMap<String, String> = BTreeMap::new();
    for instance in &all {
        let name = &instance.context.name;
        for provider in instance.factory.names(name) {
            if let Some(other) = providers.insert(provider.clone(), name.clone()) {
                let message = format!(
                    "creates a provider with the name {provider}, as does providers.{other}: rename one of them"
                );
                faults.push(FieldError::new(at(name, ""), message));
            }
        }
    }
    faults.extend(shared_locations(&all));
    (all, faults)
}

/// Faults of instances of one type with the same location: each would treat the other's resources as its own.
fn shared_locations(instances: &[Instance<'_>]) -> Vec<FieldError> {
    let mut places = BTreeMap::new();
    let mut faults = Vec::new();
    for instance in instances {
        let (config, name) = (instance.config(), &instance.context.name);
        for key in LOCATION_KEYS {
            let Some(place) = config.get(key).and_then(Value::as_str) else { continue };
            let place = (instance.factory.type_name, key, place.to_owned());
            if let Some(other) = places.insert(place, name) {
                let message = format!("is that of providers.{other} too; give each instance its own");
                faults.push(FieldError::new(at(name, key), message));
            }
        }
    }
    faults
}

/// Faults of the provider types; if they have none, those of the provider tables in a configuration that may
/// be invalid.
pub fn faults(config: &Value) -> Vec<FieldError> {
    faults_of(FACTORIES, config)
}

fn faults_of(factories: &[ProviderFactory], config: &Value) -> Vec<FieldError> {
    let wrong = factories.iter().flat_map(ProviderFactory::faults);
    let wrong: Vec<FieldError> = wrong.map(|why| FieldError::new("providers", why)).collect();
    if !wrong.is_empty() {
        return wrong;
    }
    let none = json!({});
    let shared =
        shared(PathBuf::from("."), "http://localhost", Vec::new(), config.get("files").unwrap_or(&none));
    let tables = config.get("providers").and_then(Value::as_object).cloned().unwrap_or_default();
    let (instances, mut faults) = instances(factories, &shared, &tables);
    faults.extend(instances.iter().flat_map(Instance::faults));
    faults
}

/// JSON Schema of the secret settings of all instances, which can also be set by environment variables.
pub fn secrets(config: &Value) -> Value {
    let tables = config.get("providers").and_then(Value::as_object).cloned().unwrap_or_default();
    let type_of = |name: &str, table: &Value| {
        let type_name = table.get(TYPE).and_then(Value::as_str).unwrap_or(name);
        FACTORIES.iter().find(|factory| factory.type_name == type_name)
    };
    let given = tables.iter().filter_map(|(name, table)| Some((name.clone(), type_of(name, table)?)));
    let types = FACTORIES.iter().map(|factory| (factory.type_name.to_owned(), factory));
    let all: BTreeMap<String, &ProviderFactory> = types.chain(given).collect();
    let secrets = all.into_iter().filter_map(|(name, factory)| {
        let schema = (factory.schema)();
        let settings = schema.get("properties").and_then(Value::as_object)?;
        let secret = settings.iter().filter(|(_, setting)| setting.get("x-secret").is_some());
        let secret: Map<String, Value> = secret.map(|(key, it)| (key.clone(), it.clone())).collect();
        (!secret.is_empty()).then(|| (name, json!({ "type": "object", "properties": secret })))
    });
    json!({ "type": "object", "properties": Map::from_iter(secrets) })
}

/// Builds the configured providers, for a server that clients reach at `url`. Returns an error with all
/// faults of the tables, or with the first failure of a provider.
pub async fn build(config: &Config, url: &str) -> Result<Registry> {
    let own = vec![config.store_url(), config.keyring_url()];
    let shared = shared(config.data_dir.clone(), url, own, &serde_json::to_value(&config.files)?);
    let (instances, faults) = instances(FACTORIES, &shared, &config.providers);
    if !faults.is_empty() {
        return Err(super::Faults(faults).into());
    }
    let mut registry = Registry::default();
    for instance in instances {
        let path = at(&instance.context.name, "");
        let failed = |failure: Failure| anyhow!(failure.message).context(path.clone());
        let config = instance.config();
        let Instance { factory, context, .. } = instance;
        for provider in (factory.build)(context, config).await.map_err(failed)? {
            registry.insert(provider).map_err(failed)?;
        }
    }
    Ok(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(factories: &[ProviderFactory], providers: Value) -> Vec<(String, String)> {
        let faults = faults_of(factories, &json!({ "providers": providers }));
        faults.into_iter().map(|fault| (fault.path, fault.message)).collect()
    }

    fn paths(providers: Value) -> Vec<String> {
        found(FACTORIES, providers).into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn every_type_of_this_server_is_sound() {
        for factory in FACTORIES {
            assert_eq!(factory.faults(), [""; 0]);
        }
        assert_eq!(paths(json!({})), [""; 0]);
    }

    #[test]
    fn a_type_has_any_number_of_instances() {
        assert_eq!(
            paths(json!({ "photos": { "type": "folder_bucket" }, "films": { "type": "folder_bucket" } })),
            [""; 0]
        );
        let shared = shared("data".into(), "http://localhost", Vec::new(), &json!({}));
        let tables = json!({
            "photos": { "type": "folder_bucket" },
            "eu": { "type": "postgres", "url": "postgres://eu/x" },
            "folder_bucket": { "open_files": 3 },
        });
        let tables = tables.as_object().unwrap();
        let (instances, faults) = instances(FACTORIES, &shared, tables);
        assert!(faults.is_empty(), "{faults:?}");
        let names: Vec<String> =
            instances.iter().flat_map(|instance| instance.factory.names(&instance.context.name)).collect();
        let first =
            ["eu_pool", "eu_schema", "eu_database", "sqlite_pool", "sqlite_file", "folder_bucket", "photos"];
        assert_eq!(names[..7], first);
        let folder = |name: &str| {
            let instance = instances.iter().find(|instance| instance.context.name == name).unwrap();
            instance.config()["folder"].clone()
        };
        assert_eq!(folder("folder_bucket"), "data/buckets");
        assert_eq!(folder("photos"), "data/providers/photos/buckets");
    }

    #[test]
    fn what_is_wrong_with_a_table_is_named_by_its_path() {
        for (providers, path) in [
            (json!({ "photos": {} }), "providers.photos"),
            (json!({ "photos": 1 }), "providers.photos"),
            (json!({ "my photos": { "type": "folder_bucket" } }), "providers.my photos"),
            (json!({ "photos": { "type": "s3" } }), "providers.photos.type"),
            (json!({ "photos": { "type": 3 } }), "providers.photos.type"),
            (json!({ "outbox": { "type": "folder_bucket" } }), "providers.outbox.type"),
            (json!({ "photos": { "type": "folder_bucket", "colour": "red" } }), "providers.photos.colour"),
            (json!({ "eu": { "type": "postgres" } }), "providers.eu.url"),
            (json!({ "eu": { "type": "postgres", "url": "mysql://x" } }), "providers.eu.url"),
        ] {
            assert_eq!(paths(providers.clone()), [path], "{providers}");
        }
    }

    #[test]
    fn two_providers_of_one_name_are_refused() {
        let twice = json!({
            "eu": { "type": "postgres", "url": "postgres://eu/x" },
            "eu_pool": { "type": "sqlite_pool" },
        });
        assert_eq!(paths(twice), ["providers.eu_pool"]);
    }

    #[test]
    fn instances_of_one_type_have_places_of_their_own() {
        let twice = json!({
            "films": { "type": "folder_bucket", "folder": "/srv/media" },
            "photos": { "type": "folder_bucket", "folder": "/srv/media" },
            "east": { "type": "postgres", "url": "postgres://db/x" },
            "west": { "type": "postgres", "url": "postgres://db/x" },
        });
        assert_eq!(paths(twice), ["providers.west.url", "providers.photos.folder"]);
    }

    #[test]
    fn a_type_with_a_wrong_schema_is_named() {
        let outbox = *FACTORIES.iter().find(|factory| factory.type_name == "outbox").unwrap();
        let broken = [
            ProviderFactory { schema: || json!({ "type": "object", "properties": 5 }), ..outbox },
            ProviderFactory { schema: || json!({ "type": "string" }), ..outbox },
            ProviderFactory { defaults: |_| json!({ "folder": 5, "link": "x" }), ..outbox },
            ProviderFactory { defaults: |_| json!({ "link": "x" }), ..outbox },
        ];
        for factory in broken {
            let found = found(&[factory], json!({}));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].1.starts_with("the provider type outbox: "), "{found:?}");
        }
    }

    #[tokio::test]
    async fn instances_are_built_under_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "data_dir = '{}'\n[providers.photos]\ntype = 'folder_bucket'\n[providers.eu]\ntype = 'postgres'\nurl = 'postgres://eu/x'",
            folder.path().display()
        );
        let registry = build(&Config::read(&text, []).unwrap(), "http://localhost").await.unwrap();
        for (name, kind) in [("photos", "bucket"), ("folder_bucket", "bucket"), ("eu_pool", "database")] {
            let provider = registry.get(name).unwrap();
            assert_eq!((provider.name(), provider.kind().as_str()), (name, kind));
        }
        assert!(registry.get("http").is_none() && registry.get("postgres_pool").is_none());
    }
}
