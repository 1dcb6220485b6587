//! From the text of a template to a checked one: shape by JSON Schema, then meaning. All faults at once.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use tenantry_model::Isolation;
use tenantry_provider::Registry;

use super::{StepSpec, Template, check};
use crate::error::{Error, FieldError, Result};
use crate::operations::onboard::SmokeSettings;
use crate::templates::shape;

/// Keys of a step that the engine reads; all others are the provider's settings.
const STEP_KEYS: [&str; 10] =
    ["kind", "provider", "needs", "wait", "from", "timeout", "retries", "backoff", "on_failure", "mode"];

/// A checked template with its text's meaning as JSON (what `show` prints and an operation records).
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The template.
    pub template: Template,
}

/// The JSON Schema of template files, with the settings of every provider of this process.
pub fn schema(providers: &Registry) -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Template>().to_value();
    let settings: Vec<Value> = providers
        .iter()
        .map(|provider| {
            json!({
                "if": {
                    "required": ["kind"],
                    "properties": { "kind": { "const": provider.kind() }, "provider": { "const": provider.name() } }
                },
                "then": { "$ref": format!("#/$defs/settings_{}", provider.name()) }
            })
        })
        .collect();
    if let Some(defs) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
        for provider in providers.iter() {
            let mut own = provider.settings_schema();
            if let Some(own) = own.as_object_mut() {
                // The step's own keys are described once, above; here only what is the provider's.
                own.remove("additionalProperties");
                own.remove("$schema");
            }
            defs.insert(format!("settings_{}", provider.name()), own);
        }
        if let Some(step) = defs.get_mut("StepSpec").and_then(Value::as_object_mut) {
            step.insert("allOf".to_owned(), Value::Array(settings));
            step.remove("additionalProperties");
        }
    }
    schema
}

/// Reads a template from YAML text.
pub fn load(text: &str, providers: &Registry) -> Result<Loaded> {
    // First as YAML's own value: only that refuses a key that stands twice.
    let value: Value =
        yaml_serde::from_str::<yaml_serde::Value>(text).and_then(yaml_serde::from_value).map_err(|why| {
            Error::invalid("template_invalid", vec![FieldError::new("", format!("is not YAML: {why}"))])
        })?;
    let schema = schemars::schema_for!(Template).to_value();
    let faults = shape::faults(&schema, &value);
    if !faults.is_empty() {
        return Err(Error::invalid("template_invalid", faults));
    }
    // Again from the text: a JSON object would lose the order of the steps.
    let template: Template = yaml_serde::from_str(text)
        .map_err(|why| Error::invalid("template_invalid", vec![FieldError::new("", why)]))?;
    let mut faults = check::faults(&template, providers);
    for (key, step) in &template.steps {
        faults.extend(settings_faults(key, step, template.isolation, providers));
    }
    if faults.is_empty() { Ok(Loaded { template }) } else { Err(Error::invalid("template_invalid", faults)) }
}

fn settings_faults(
    key: &str,
    step: &StepSpec,
    isolation: Isolation,
    providers: &Registry,
) -> Vec<FieldError> {
    debug_assert!(STEP_KEYS.iter().all(|k| !step.settings.contains_key(*k)));
    let settings = Value::Object(step.settings.clone());
    let at =
        |path: &str| if path.is_empty() { format!("steps.{key}") } else { format!("steps.{key}.{path}") };
    let in_place = |faults: Vec<FieldError>| {
        faults.into_iter().map(|f| FieldError::new(at(&f.path), f.message)).collect()
    };
    let Some(provider) = check::provider(step, isolation, providers) else {
        return match key {
            _ if step.kind.is_some() => Vec::new(),
            "smoke_test" => {
                in_place(shape::faults(schemars::schema_for!(SmokeSettings).as_value(), &settings))
            }
            _ => in_place(
                step.settings
                    .keys()
                    .map(|k| FieldError::new(k, "is not known for such a step; remove it"))
                    .collect(),
            ),
        };
    };
    let shape = shape::faults(&provider.settings_schema(), &settings);
    let shape = shape.into_iter().map(|f| FieldError::new(at(&f.path), f.message));
    let meaning = provider.check(&settings).into_iter().map(|f| FieldError::new(at(&f.path), f.message));
    shape.chain(meaning).collect()
}
