//! Provider types: the schema and the defaults of a type's configuration, and the function that builds its providers.
//! Each provider exports one `FACTORY`; the server has a list of them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tenantry_model::Failure;

use crate::verbs::{Fault, Kind, Provider};

/// Key that names the type in a configuration table. No type may have a setting with this name.
pub const TYPE: &str = "type";

/// Future that [`ProviderFactory::build`] returns.
pub type Building = Pin<Box<dyn Future<Output = Result<Vec<Arc<dyn Provider>>, Failure>> + Send>>;

/// A provider type, which the configuration names in `[providers.NAME] type = "…"`.
#[derive(Clone, Copy, Debug)]
pub struct ProviderFactory {
    /// Name of the type. A table that has this name and no key `type` configures the type's default instance.
    pub type_name: &'static str,
    /// Kind of resource that all providers of the type create.
    pub kind: Kind,
    /// One line for the commented default configuration: what a provider of this type does.
    pub about: &'static str,
    /// Suffixes of the names of the providers that one instance creates, after the instance's name. Most types create
    /// one provider with the name of its instance: `&[""]`.
    pub parts: &'static [&'static str],
    /// Whether a server has the default instance even if the configuration has no table for it. No setting of such a
    /// type is required.
    pub always: bool,
    /// Returns the JSON Schema (2020-12) of the configuration, which is an object.
    pub schema: fn() -> Value,
    /// Returns the defaults of settings that depend on the process, such as folders.
    pub defaults: fn(&BuildContext) -> Value,
    /// Returns the faults of a configuration that a schema cannot describe. It is also called with configurations that
    /// do not satisfy the schema.
    pub check: fn(&Value) -> Vec<Fault>,
    /// Builds the providers of an instance, in the order of `parts`. The configuration includes the defaults and
    /// satisfies the schema.
    pub build: fn(BuildContext, Value) -> Building,
}

/// Properties of the server and the instance that providers are built with.
#[derive(Clone, Debug)]
pub struct BuildContext {
    /// Name of the instance.
    pub name: String,
    /// Whether the instance is the default instance of its type.
    pub is_default: bool,
    /// Data folder of the server.
    pub data_dir: PathBuf,
    /// URL at which clients reach the server, such as `https://tenantry.example`, without a trailing slash.
    pub public_url: String,
    /// URLs of the registry and the keyring.
    pub own_databases: OwnDatabases,
    /// Folder with the operator's migrations; none: the migrations in the binary.
    pub migrations: Option<PathBuf>,
    /// Folder with the operator's seeds; none: the seeds in the binary.
    pub seeds: Option<PathBuf>,
    /// Folder with the operator's mail templates; none: the templates in the binary.
    pub mail: Option<PathBuf>,
}

/// URLs of the databases that no tenant may reach: the registry and the keyring. `Debug` shows none, because they may have
/// passwords.
#[derive(Clone, Default)]
pub struct OwnDatabases(pub Vec<String>);

impl fmt::Debug for OwnDatabases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnDatabases").field(&self.0.len()).finish()
    }
}

impl BuildContext {
    /// Context of a type's default instance in this data folder, with the migrations, seeds and mail templates of the
    /// binary and the URL `http://localhost`.
    pub fn new(type_name: &str, data_dir: &Path) -> Self {
        Self {
            name: type_name.to_owned(),
            is_default: true,
            data_dir: data_dir.to_owned(),
            public_url: "http://localhost".to_owned(),
            own_databases: OwnDatabases::default(),
            migrations: None,
            seeds: None,
            mail: None,
        }
    }

    /// Folder for the instance's files: `own` in the data folder for the default instance, and
    /// `providers/INSTANCE/own` for any other, so that no two instances share a folder.
    pub fn path(&self, own: &str) -> PathBuf {
        match self.is_default {
            true => self.data_dir.join(own),
            false => self.data_dir.join("providers").join(&self.name).join(own),
        }
    }
}

impl ProviderFactory {
    /// Names of the providers of an instance.
    pub fn names(&self, instance: &str) -> Vec<String> {
        self.parts.iter().map(|part| format!("{instance}{part}")).collect()
    }

    /// Checks the factory itself and returns its faults, such as an invalid schema, or defaults that do not satisfy it.
    pub fn faults(&self) -> Vec<String> {
        let fault = |why: String| vec![format!("the provider type {}: {why}", self.type_name)];
        if !is_name(self.type_name) {
            return fault("its name must have a-z, 0-9 and _, beginning with a letter".to_owned());
        }
        if self.parts.is_empty() {
            return fault("an instance must make at least one provider".to_owned());
        }
        let schema = (self.schema)();
        if schema.get("type").is_none_or(|kind| kind != "object") {
            return fault("the schema of its configuration must describe an object".to_owned());
        }
        if schema.get("properties").and_then(|all| all.get(TYPE)).is_some() {
            return fault(format!("its configuration must not have a key `{TYPE}`, which names the type"));
        }
        let validator = match jsonschema::validator_for(&schema) {
            Ok(validator) => validator,
            Err(why) => return fault(format!("the schema of its configuration is not valid: {why}")),
        };
        let defaults = (self.defaults)(&BuildContext::new(self.type_name, Path::new("data")));
        let required = |error: &jsonschema::ValidationError<'_>| {
            // Required settings are missing from the defaults, unless every server has the default instance.
            !self.always
                && error.instance_path().as_str().is_empty()
                && matches!(error.kind(), jsonschema::error::ValidationErrorKind::Required { .. })
        };
        let errors = validator.iter_errors(&defaults).filter(|error| !required(error));
        errors
            .flat_map(|error| {
                let at = error.instance_path().as_str().trim_start_matches('/').replace('/', ".");
                fault(format!("its default configuration does not satisfy its schema: {at} {error}"))
            })
            .collect()
    }
}

/// Whether a text is a valid name of a type or an instance: `a-z`, `0-9` and `_`, a letter first, at most 40 bytes.
pub fn is_name(name: &str) -> bool {
    name.len() <= 40
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// For [`ProviderFactory::defaults`] of a type whose schema has all defaults.
pub fn no_defaults(_: &BuildContext) -> Value {
    Value::Object(Map::new())
}

/// For [`ProviderFactory::check`] of a type whose schema checks everything.
pub fn no_check(_: &Value) -> Vec<Fault> {
    Vec::new()
}

/// Reads a configuration. The error `bad_config` says which setting is missing or wrong.
pub fn config<T: DeserializeOwned>(config: Value) -> Result<T, Failure> {
    serde_json::from_value(config).map_err(|why| Failure::invalid("bad_config", why.to_string()))
}

/// The result of [`ProviderFactory::build`] for an instance with one provider.
pub fn one(provider: impl Provider) -> Vec<Arc<dyn Provider>> {
    vec![Arc::new(provider)]
}
