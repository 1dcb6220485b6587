//! Settings of a template's step: their schema for plan time, and reading them back from a committed spec.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tenantry_model::Failure;

use crate::verbs::{Fault, Spec};

/// The JSON Schema of a provider's settings.
pub fn schema<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}

/// The settings of a spec. They were checked when the plan was made; a failure means that they are from another
/// version and no longer understood.
pub fn of<T: DeserializeOwned>(spec: &Spec) -> Result<T, Failure> {
    read(&spec.settings).map_err(|why| Failure::invalid("bad_settings", why))
}

/// The settings that a step gives, or what is wrong with them.
pub fn check<T: DeserializeOwned>(settings: &Value) -> Result<T, Vec<Fault>> {
    read(settings).map_err(|message| vec![Fault { path: String::new(), message }])
}

fn read<T: DeserializeOwned>(settings: &Value) -> Result<T, String> {
    match settings {
        Value::Null => serde_json::from_value(Value::Object(Map::new())),
        Value::Object(_) => serde_json::from_value(settings.clone()),
        // A struct would also be read from a list.
        _ => return Err("must be a map of settings".to_owned()),
    }
    .map_err(|error| error.to_string())
}
