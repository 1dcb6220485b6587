//! How a process makes providers of a type: the schema and the defaults of their configuration, and the function that
//! builds them. Each provider exports one `FACTORY`; a server lists them.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tenantry_model::Failure;

use crate::verbs::{Fault, Kind, Provider};

/// The key of a configuration table that names the type. No type may have a setting of this name.
pub const TYPE: &str = "type";

/// The future of [`ProviderFactory::build`].
pub type Building = Pin<Box<dyn Future<Output = Result<Vec<Arc<dyn Provider>>, Failure>> + Send>>;

/// A type of providers: what `[providers.NAME] type = "…"` names in the configuration.
#[derive(Clone, Copy, Debug)]
pub struct ProviderFactory {
    /// Name of the type. A table without `type` that has this name is an instance of it: the default instance.
    pub type_name: &'static str,
    /// Kind of all its providers.
    pub kind: Kind,
    /// One line for the commented default configuration: what a provider of this type does.
    pub about: &'static str,
    /// Endings of the names of the providers that one instance makes, after the instance's own name. Most types make one
    /// provider, named as its instance: `&[""]`.
    pub parts: &'static [&'static str],
    /// Whether a server has the default instance without a table for it. Such a type needs no setting to be given.
    pub always: bool,
    /// JSON Schema (2020-12) of the configuration: an object.
    pub schema: fn() -> Value,
    /// Values of settings that a table leaves out and that depend on the process, such as folders.
    pub defaults: fn(&BuildContext) -> Value,
    /// What the schema cannot say about a configuration. Gets configurations that may not fit the schema.
    pub check: fn(&Value) -> Vec<Fault>,
    /// Builds the providers of an instance, in the order of `parts`. The configuration has the defaults in it and fits
    /// the schema.
    pub build: fn(BuildContext, Value) -> Building,
}

/// What a process tells the providers of one instance.
#[derive(Clone, Debug)]
pub struct BuildContext {
    /// Name of the instance.
    pub name: String,
    /// Whether the instance is the default one of its type.
    pub is_default: bool,
    /// Folder of everything that the process keeps.
    pub data_dir: PathBuf,
    /// How clients reach the server: `https://…`, without a slash at its end.
    pub public_url: String,
    /// The operator's folder of migrations; without it, those in the binary.
    pub migrations: Option<PathBuf>,
    /// The operator's folder of seeds; without it, those in the binary.
    pub seeds: Option<PathBuf>,
    /// The operator's folder of mail templates; without it, those in the binary.
    pub mail: Option<PathBuf>,
}

impl BuildContext {
    /// The default instance of a type, in this folder, with the product files of the binary.
    pub fn new(type_name: &str, data_dir: &Path) -> Self {
        Self {
            name: type_name.to_owned(),
            is_default: true,
            data_dir: data_dir.to_owned(),
            public_url: "http://localhost".to_owned(),
            migrations: None,
            seeds: None,
            mail: None,
        }
    }

    /// Where the instance keeps its files: `own` in the data folder, for the default instance; a path below the
    /// instance's name for each other one, so that no two instances share a folder.
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

    /// What is wrong with the factory itself: a schema that is none, defaults that do not satisfy it.
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
            // Settings that the operator has to give are missing from the defaults of a type that needs a table.
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

/// Whether a text can name a type or an instance: `a-z`, `0-9` and `_`, at most 40 bytes, beginning with a letter.
pub fn is_name(name: &str) -> bool {
    name.len() <= 40
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// No defaults besides those of the schema.
pub fn no_defaults(_: &BuildContext) -> Value {
    Value::Object(Map::new())
}

/// Nothing to check besides the schema.
pub fn no_check(_: &Value) -> Vec<Fault> {
    Vec::new()
}

/// The configuration as its type.
pub fn config<T: DeserializeOwned>(config: Value) -> Result<T, Failure> {
    serde_json::from_value(config).map_err(|why| Failure::invalid("bad_config", why.to_string()))
}

/// The one provider of an instance.
pub fn one(provider: impl Provider) -> Vec<Arc<dyn Provider>> {
    vec![Arc::new(provider)]
}
