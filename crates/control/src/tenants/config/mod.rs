//! Flags and settings of a tenant: one row of the registry, with the plan's limits as the setting `quotas`. The configuration
//! resource of a tenant is this row; `provider` serves it.

mod provider;
mod transfer;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};
use tenantry_model::Failure;
use tenantry_provider::kinds::config::ConfigSettings;
use tenantry_provider::{Context, Spec};
use tenantry_store::entity::config::Model;
use tenantry_store::rows_of;

pub use provider::{ConfigBuiltin, FACTORY};

/// The setting that holds the plan's limits. Templates and requests cannot set it.
const QUOTAS: &str = "quotas";

/// Longest settings that are accepted at once, in bytes of JSON.
pub const MAX_VALUES: usize = 64 << 10;

/// Returns why the settings of a request are rejected; none if they are not.
pub(crate) fn values_fault(values: &Value) -> Option<String> {
    if values.to_string().len() > MAX_VALUES {
        Some(format!("must have at most {MAX_VALUES} bytes as JSON"))
    } else if has_controls(values) {
        Some("must not contain control characters".to_owned())
    } else {
        None
    }
}

/// Whether a text in it has control characters other than those that lay out a text.
fn has_controls(value: &Value) -> bool {
    let bad = |text: &str| text.chars().any(|c| c.is_control() && !"\n\r\t".contains(c));
    match value {
        Value::String(text) => bad(text),
        Value::Array(values) => values.iter().any(has_controls),
        Value::Object(map) => map.iter().any(|(name, value)| bad(name) || has_controls(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The flags and settings of a new tenant.
fn defaults(settings: ConfigSettings) -> (Map<String, Value>, Map<String, Value>) {
    let mut values = settings.settings;
    values.insert(QUOTAS.to_owned(), Value::Object(settings.quotas));
    (settings.flags, values)
}

/// Adds the defaults that are missing. False if none is.
fn complete(values: &mut Map<String, Value>, defaults: Map<String, Value>) -> bool {
    let before = values.len();
    for (key, value) in defaults {
        values.entry(key).or_insert(value);
    }
    values.len() > before
}

/// The tenant's row, and whether it is the resource's.
async fn row(context: &Context, spec: &Spec) -> Result<Option<(Model, bool)>, Failure> {
    let row = rows_of::<Model>(&*context.rows, spec.tenant.id).await?.pop();
    Ok(row.map(|row| {
        let own = row.resource_id == spec.resource.to_string();
        (row, own)
    }))
}

/// A JSON column that holds an object.
fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
