//! Configuration of a process: the embedded defaults, overridden by a file, overridden by environment variables. It is
//! checked as a whole before anything starts, and all faults are reported at once; unknown keys are faults.

#[cfg(test)]
mod defaults;
mod limits;
mod overlay;
mod providers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tenantry_control::FieldError;
use tenantry_control::shape;
use tenantry_control::template::Span;
use tenantry_model::Network;

pub use limits::{Limits, Timeouts};
pub use providers::build;

/// The defaults, which are also the documentation.
pub const DEFAULTS: &str = include_str!("../tenantry.default.toml");

/// Everything that can be set. `tenantry.default.toml` says what each key means.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described where people read it, in tenantry.default.toml")]
pub struct Config {
    pub listen: String,
    pub operator_listen: Option<String>,
    pub public_url: Option<String>,
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    pub data_dir: PathBuf,
    pub admin_key_file: Option<PathBuf>,
    pub archives_dir: Option<PathBuf>,
    #[schemars(range(min = 1))]
    pub import_max_bytes: u64,
    pub region: String,
    pub locale: String,
    #[serde(default)]
    pub capacity: BTreeMap<String, BTreeMap<String, u32>>,
    #[serde(default)]
    pub regions: BTreeMap<String, BTreeSet<String>>,
    pub store: Store,
    pub keyring: Keyring,
    #[serde(default)]
    pub files: Files,
    pub executor: Executor,
    pub isolation: Isolation,
    pub sessions: Sessions,
    pub limits: Limits,
    pub shutdown: Shutdown,
    pub log: Log,
    // Each table is checked by the type of its provider.
    #[serde(default)]
    pub providers: Map<String, Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Store {
    #[schemars(extend("x-secret" = true))]
    pub url: Option<String>,
    #[schemars(range(min = 1, max = 256))]
    pub readers: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Keyring {
    #[schemars(extend("x-secret" = true))]
    pub url: Option<String>,
    pub master_key_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Files {
    pub templates: Option<PathBuf>,
    pub catalogue: Option<PathBuf>,
    pub migrations: Option<PathBuf>,
    pub seeds: Option<PathBuf>,
    pub mail: Option<PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Executor {
    #[schemars(range(min = 1, max = 100_000))]
    pub max_active: usize,
    pub retry_for: Span,
    #[serde(default)]
    #[schemars(extend("additionalProperties" = { "type": "integer", "minimum": 1, "maximum": 100_000 }))]
    pub at_once: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Isolation {
    pub every: Span,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Sessions {
    pub idle: Span,
    pub lifetime: Span,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Shutdown {
    #[schemars(range(max = 5000))]
    pub delay_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

/// How records of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Every fault of a configuration.
#[derive(Debug)]
pub struct Faults(pub Vec<FieldError>);

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the configuration is not valid:")?;
        for FieldError { path, message } in &self.0 {
            let colon = if path.is_empty() { "" } else { ": " };
            write!(f, "\n  {path}{colon}{message}")?;
        }
        Ok(())
    }
}
impl std::error::Error for Faults {}

impl Config {
    /// Defaults, then this file, then the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, Faults> {
        let text = match file {
            None => None,
            Some(file) => Some(std::fs::read_to_string(file).map_err(|why| {
                Faults(vec![FieldError::new("", format!("cannot read {}: {why}", file.display()))])
            })?),
        };
        Self::read(
            text.as_deref().unwrap_or_default(),
            std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?))),
        )
    }

    /// The configuration of `tenantry dev`: defaults in one folder, and the environment.
    pub fn dev(folder: &Path, listen: SocketAddr) -> Result<Self, Faults> {
        let mut config = Self::load(None)?;
        config.listen = listen.to_string();
        folder.clone_into(&mut config.data_dir);
        config.log.format = LogFormat::Text;
        Ok(config)
    }

    /// From a file's text and environment variables.
    pub fn read(text: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, Faults> {
        let schema = schema();
        let mut faults = Vec::new();
        let mut value = parse(DEFAULTS)?;
        overlay::merge(&mut value, parse(text)?);
        let with_secrets = with_secrets(&schema, &value);
        faults.extend(overlay::environment(&mut value, &with_secrets, environment));
        faults.extend(shape::faults(&schema, &value));
        faults.extend(meaning(&value));
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        serde_json::from_value(value).map_err(|why| Faults(vec![FieldError::new("", why)]))
    }

    /// The effective configuration, with passwords hidden.
    pub fn shown(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        hide_passwords(&mut value);
        value
    }

    /// URL at which clients reach a server that listens on `address`.
    pub fn url(&self, address: SocketAddr) -> String {
        self.public_url.clone().unwrap_or_else(|| format!("http://{address}"))
    }

    /// The registry's database.
    pub fn store_url(&self) -> String {
        self.store.url.clone().unwrap_or_else(|| self.sqlite("registry.db"))
    }

    /// The keyring's database.
    pub fn keyring_url(&self) -> String {
        self.keyring.url.clone().unwrap_or_else(|| self.sqlite("keyring.db"))
    }

    /// The file of the key that wraps all others, and whether it may be made.
    pub fn master_key(&self) -> (PathBuf, bool) {
        match &self.keyring.master_key_file {
            Some(file) => (file.clone(), false),
            None => (self.data_dir.join("master.key"), true),
        }
    }

    /// The file of the first admin key.
    pub fn admin_key(&self) -> PathBuf {
        self.admin_key_file.clone().unwrap_or_else(|| self.data_dir.join("admin.key"))
    }

    /// The folder of exports and backups.
    pub fn archives(&self) -> PathBuf {
        self.archives_dir.clone().unwrap_or_else(|| self.data_dir.join("archives"))
    }

    fn sqlite(&self, file: &str) -> String {
        format!("sqlite://{}", self.data_dir.join(file).display())
    }
}

/// The shape of a configuration.
pub fn schema() -> Value {
    let inline = |settings: &mut SchemaSettings| settings.inline_subschemas = true;
    SchemaSettings::draft2020_12().with(inline).into_generator().into_root_schema_for::<Config>().to_value()
}

/// The shape with the secret settings of all providers, which can come from the environment.
fn with_secrets(schema: &Value, config: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(all) = schema.pointer_mut("/properties").and_then(Value::as_object_mut) {
        all.insert("providers".to_owned(), providers::secrets(config));
    }
    schema
}

/// Hides the password of every URL in the document.
fn hide_passwords(value: &mut Value) {
    match value {
        Value::String(text) => *text = overlay::without_password(text),
        Value::Array(values) => values.iter_mut().for_each(hide_passwords),
        Value::Object(map) => map.values_mut().for_each(hide_passwords),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn parse(text: &str) -> Result<Value, Faults> {
    let fault = |why: String| Faults(vec![FieldError::new("", why)]);
    let table: toml::Table = toml::from_str(text).map_err(|why| fault(unreadable(text, &why)))?;
    serde_json::to_value(table).map_err(|why| fault(why.to_string()))
}

/// Why a text is not TOML, with its place. The parser's own words quote the line, which may hold a password.
fn unreadable(text: &str, why: &toml::de::Error) -> String {
    let before = why.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("is not valid TOML at line {line}, column {column}")
}

/// Checks that the schema cannot express. They run on the merged document, so that their faults are reported together
/// with those of the schema.
fn meaning(value: &Value) -> Vec<FieldError> {
    let mut faults = Vec::new();
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let mut check = |path: &str, fault: Option<String>| {
        faults.extend(fault.map(|message| FieldError::new(path, message)));
    };
    for path in ["listen", "operator_listen"] {
        let listen = text(&format!("/{path}")).filter(|listen| listen.parse::<SocketAddr>().is_err());
        check(path, listen.map(|_| "must be an IP address and a port, such as 127.0.0.1:7780".to_owned()));
    }
    let proxies = value.get("trusted_proxies").and_then(Value::as_array).into_iter().flatten();
    let wrong = proxies.filter_map(|proxy| proxy.as_str()?.parse::<Network>().err()).next();
    check("trusted_proxies", wrong);
    for path in ["header", "body", "write"].map(|name| format!("limits.timeouts.{name}")) {
        let zero = text(&format!("/{}", path.replace('.', "/"))).and_then(|text| Span::parse(text).ok());
        check(&path, zero.filter(|span| span.millis() == 0).map(|_| "must be longer than 0s".to_owned()));
    }
    let is_web = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    let public = text("/public_url").filter(|url| !is_web(url) || url.ends_with('/'));
    check(
        "public_url",
        public.map(|_| "must begin with http:// or https:// and have no slash at its end".to_owned()),
    );
    for path in ["store.url", "keyring.url"] {
        let url = text(&format!("/{}", path.replace('.', "/")));
        let wrong =
            url.filter(|url| !["sqlite:", "postgres://", "postgresql://"].iter().any(|s| url.starts_with(s)));
        check(path, wrong.map(|_| "must begin with sqlite: or postgres://".to_owned()));
    }
    if let (Some(store), Some(keyring)) = (text("/store/url"), text("/keyring/url"))
        && store == keyring
    {
        let message =
            "must not be the registry's database: a backup of the registry must not contain the keys"
                .to_owned();
        check("keyring.url", Some(message));
    }
    let filter =
        text("/log/filter").map(|filter| filter.parse::<tracing_subscriber::EnvFilter>().map(|_| ()));
    check("log.filter", filter.and_then(Result::err).map(|why| format!("is not a valid log filter: {why}")));
    for (path, is_file) in [
        ("keyring.master_key_file", true),
        ("files.catalogue", true),
        ("files.templates", false),
        ("files.migrations", false),
        ("files.seeds", false),
        ("files.mail", false),
    ] {
        let Some(found) = text(&format!("/{}", path.replace('.', "/"))).map(Path::new) else { continue };
        let message = match (is_file, found.is_file(), found.is_dir()) {
            (true, true, _) | (false, _, true) => continue,
            (true, ..) => format!("the file {} does not exist", found.display()),
            (false, ..) => format!("the folder {} does not exist", found.display()),
        };
        check(path, Some(message));
    }
    faults.extend(providers::faults(value));
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let faults = Config::read(text, environment).err().map(|faults| faults.0).unwrap_or_default();
        faults.into_iter().map(|fault| fault.path).collect()
    }

    #[test]
    fn the_defaults_hold() {
        let config = Config::read("", []).unwrap();
        assert_eq!(config.store_url(), "sqlite://tenantry-data/registry.db");
        assert_eq!(config.master_key(), (PathBuf::from("tenantry-data/master.key"), true));
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let text = "listen = 'here'\noperator_listen = 'there'\ntrusted_proxies = ['10.0.0.0/8', '10.0.0.1/8']\ncolour = 'red'\n[store]\nurl = 'mysql://x'\nreaders = 0\n[log]\nformat = 'xml'\n\
                    [limits.connections]\ntotal = 0\n[limits.timeouts]\nwrite = '0s'\n[files]\nseeds = '/nowhere/at/all'\n[providers.carrier_pigeon]\n[providers.outbox]\nform = 'x'\n";
        let mut found = paths(text, &[("TENANTRY_EXECUTOR_MAX_ACTIVE", "many")]);
        found.sort();
        assert_eq!(
            found,
            [
                "colour",
                "executor.max_active",
                "files.seeds",
                "limits.connections.total",
                "limits.timeouts.write",
                "listen",
                "log.format",
                "operator_listen",
                "providers.carrier_pigeon",
                "providers.outbox.form",
                "store.readers",
                "store.url",
                "trusted_proxies"
            ]
        );
    }

    #[test]
    fn the_environment_wins() {
        let environment = [
            ("TENANTRY_LISTEN".to_owned(), "0.0.0.0:1".to_owned()),
            ("TENANTRY_STORE_READERS".to_owned(), "7".to_owned()),
        ];
        let config = Config::read("listen = '127.0.0.1:2'", environment).unwrap();
        assert_eq!((config.listen.as_str(), config.store.readers), ("0.0.0.0:1", 7));
    }

    #[test]
    fn the_tenants_server_can_be_named_in_the_environment() {
        let name = |url: &str| [("TENANTRY_PROVIDERS_POSTGRES_URL".to_owned(), url.to_owned())];
        let config = Config::read("", name("postgres://db/x")).unwrap();
        assert_eq!(config.providers["postgres"]["url"], "postgres://db/x");
        assert_eq!(
            paths("", &[("TENANTRY_PROVIDERS_POSTGRES_URL", "mysql://x")]),
            ["providers.postgres.url"]
        );
        assert_eq!(paths("[providers.postgres]", &[]), ["providers.postgres.url"]);
        let named = "[providers.eu]\ntype = 'postgres'";
        assert_eq!(paths(named, &[("TENANTRY_PROVIDERS_EU_URL", "postgres://eu/x")]), [""; 0]);
    }

    #[test]
    fn passwords_are_not_shown() {
        let config = Config::read("[store]\nurl = 'postgres://me:hunter2@db/x'", []).unwrap();
        assert_eq!(config.shown()["store"]["url"], "postgres://me:***@db/x");
        let text = "[providers.postgres]\nurl = 'postgres://me:hunter2@db/x'\nclusters.eu = { url = 'postgres://me:hunter3@eu/x' }";
        let shown = Config::read(text, []).unwrap().shown()["providers"]["postgres"].clone();
        assert_eq!(shown["url"], "postgres://me:***@db/x");
        assert_eq!(shown["clusters"]["eu"]["url"], "postgres://me:***@eu/x");
    }

    #[test]
    fn a_parse_error_names_the_place_and_no_password() {
        for line in [
            "url = 'postgres://me:hunter2@db/x",
            "url = postgres://me:hunter2@db/x",
            "hunter2 = 1\nhunter2 = 2",
        ] {
            let text = format!("[store]\nreaders = 4\n{line}\n");
            let faults = Config::read(&text, []).err().map(|faults| faults.0).unwrap_or_default();
            let said = &faults[0].message;
            assert!(said.contains("at line 3") || said.contains("at line 4"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn each_cluster_has_its_url_and_its_pooler() {
        let text = |eu: &str| format!("[providers.postgres]\nurl = 'postgres://db/x'\nclusters.eu = {eu}");
        assert_eq!(paths(&text("{ url = 'postgres://eu/x', pooler = 'pool.eu:6432' }"), &[]), [""; 0]);
        assert_eq!(paths(&text("{ pooler = 'pool.eu:6432' }"), &[]), ["providers.postgres.clusters.eu.url"]);
        assert_eq!(paths(&text("{ url = 'mysql://eu/x' }"), &[]), ["providers.postgres.clusters.eu.url"]);
        let misspelt = text("{ url = 'postgres://eu/x', poolers = 'a:1' }");
        assert_eq!(paths(&misspelt, &[]), ["providers.postgres.clusters.eu.poolers"]);
    }
}
