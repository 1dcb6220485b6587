//! Settings of a template's step: their schema for plan time, and reading them back from a committed spec.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tenantry_model::Failure;

use crate::kinds::{self, KindSettings};
use crate::verbs::{Fault, Spec};

/// The settings of a provider that has none besides those of its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// The JSON Schema of settings.
pub fn schema<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}

/// The settings of a spec, as one type: the kind's, of a provider without its own, or the provider's, of a kind without
/// any. They were checked when the plan was made; a failure means that they are from another version that this one does
/// not understand.
pub fn of<T: DeserializeOwned>(spec: &Spec) -> Result<T, Failure> {
    read(&spec.settings).map_err(|why| Failure::invalid("bad_settings", why))
}

/// The kind's settings of a spec and the provider's own. Fails as [`of`] does.
pub fn both_of<K: KindSettings, W: DeserializeOwned>(spec: &Spec) -> Result<(K, W), Failure> {
    both(&spec.settings).map_err(|why| Failure::invalid("bad_settings", why))
}

/// The settings that a step gives, or what is wrong with them.
pub fn check<T: DeserializeOwned>(settings: &Value) -> Result<T, Vec<Fault>> {
    read(settings).map_err(|message| vec![Fault { path: String::new(), message }])
}

/// The kind's settings that a step gives and the provider's own, or what is wrong with them.
pub fn check_both<K: KindSettings, W: DeserializeOwned>(settings: &Value) -> Result<(K, W), Vec<Fault>> {
    both(settings).map_err(|message| vec![Fault { path: String::new(), message }])
}

fn both<K: KindSettings, W: DeserializeOwned>(settings: &Value) -> Result<(K, W), String> {
    let none = Map::new();
    let map = match settings {
        Value::Object(map) => map,
        Value::Null => &none,
        _ => return Err(NO_MAP.to_owned()),
    };
    let (kind, own) = kinds::split(K::KIND, map);
    Ok((read(&Value::Object(kind))?, read(&Value::Object(own))?))
}

const NO_MAP: &str = "must be a map of settings";

fn read<T: DeserializeOwned>(settings: &Value) -> Result<T, String> {
    match settings {
        Value::Null => serde_json::from_value(Value::Object(Map::new())),
        Value::Object(_) => serde_json::from_value(settings.clone()),
        // A struct would also be read from a list.
        _ => return Err(NO_MAP.to_owned()),
    }
    .map_err(|error| error.to_string())
}
