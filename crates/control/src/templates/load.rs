//! From the text of a template to a checked one: shape by JSON Schema, then meaning. All faults at once.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use tenantry_model::ErrorCode;
use tenantry_model::Isolation;
use tenantry_provider::{Registry, kinds};

use super::built_in::SMOKE_TEST;
use super::{SmokeSettings, StepSpec, Template, check};
use crate::error::{Error, FieldError, Result};
use crate::templates::shape;

/// The key of a step under which the provider's own settings stand.
const WITH: &str = "with";

/// A checked template with its text's meaning as JSON (what `show` prints and an operation records).
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The template.
    pub template: Template,
}

/// The JSON Schema of template files, with the settings of every kind and of every provider of this process.
pub fn schema(providers: &Registry) -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Template>().to_value();
    let mut definitions = Map::new();
    let mut conditions = Vec::new();
    for provider in providers.iter() {
        let (kind, name) = (provider.kind(), provider.name());
        let of_kind = format!("settings_{}", kind.as_str());
        if !definitions.contains_key(&of_kind) {
            conditions.push(json!({
                "if": { "required": ["kind"], "properties": { "kind": { "const": kind } } },
                "then": { "$ref": format!("#/$defs/{of_kind}") }
            }));
            // A step has keys of its own beside those of the kind.
            definitions.insert(of_kind, inner(kinds::schema(kind), true));
        }
        conditions.push(json!({
            "if": {
                "required": ["kind", "provider"],
                "properties": { "kind": { "const": kind }, "provider": { "const": name } }
            },
            "then": { "properties": { WITH: { "$ref": format!("#/$defs/with_{name}") } } }
        }));
        definitions.insert(format!("with_{name}"), inner(provider.settings_schema(), false));
    }
    if let Some(all) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
        if let Some(step) = all.get_mut("StepSpec").and_then(Value::as_object_mut) {
            step.insert("allOf".to_owned(), Value::Array(conditions));
            step.remove("additionalProperties");
        }
        all.extend(definitions);
    }
    schema
}

/// A schema inside another one, if need be one that allows more properties.
fn inner(mut schema: Value, open: bool) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("$schema");
        if open {
            schema.remove("additionalProperties");
        }
    }
    schema
}

/// Reads a template from YAML text.
pub fn load(text: &str, providers: &Registry) -> Result<Loaded> {
    // First as YAML's own value: only that refuses a key that stands twice.
    let value: Value =
        yaml_serde::from_str::<yaml_serde::Value>(text).and_then(yaml_serde::from_value).map_err(|why| {
            Error::invalid(
                ErrorCode::TemplateInvalid,
                vec![FieldError::new("", format!("is not YAML: {why}"))],
            )
        })?;
    let schema = schemars::schema_for!(Template).to_value();
    let faults = shape::faults(&schema, &value);
    if !faults.is_empty() {
        return Err(Error::invalid(ErrorCode::TemplateInvalid, faults));
    }
    // Again from the text: a JSON object would lose the order of the steps.
    let template: Template = yaml_serde::from_str(text)
        .map_err(|why| Error::invalid(ErrorCode::TemplateInvalid, vec![FieldError::new("", why)]))?;
    let mut faults = check::faults(&template, providers);
    for (key, step) in &template.steps {
        faults.extend(settings_faults(key, step, template.isolation, providers));
    }
    if faults.is_empty() {
        Ok(Loaded { template })
    } else {
        Err(Error::invalid(ErrorCode::TemplateInvalid, faults))
    }
}

/// Checks the settings of a step, and returns all faults. The settings of the kind stand beside the step's own keys,
/// those of the provider under `with`.
fn settings_faults(
    key: &str,
    step: &StepSpec,
    isolation: Isolation,
    providers: &Registry,
) -> Vec<FieldError> {
    let at = |under: &str, path: &str| {
        let parts = ["steps", key, under, path].into_iter().filter(|part| !part.is_empty());
        Vec::from_iter(parts).join(".")
    };
    let in_place = |under: &'static str, faults: Vec<FieldError>| {
        faults.into_iter().map(move |fault| FieldError::new(at(under, &fault.path), fault.message))
    };
    let settings = Value::Object(step.settings.clone());
    let Some(kind) = step.kind else {
        let mut faults: Vec<FieldError> = match key {
            SMOKE_TEST => {
                let schema = schemars::schema_for!(SmokeSettings);
                in_place("", shape::faults(schema.as_value(), &settings)).collect()
            }
            _ => {
                let unknown = |key| FieldError::new(at("", key), "is not known for such a step; remove it");
                step.settings.keys().map(|key| unknown(key)).collect()
            }
        };
        if !step.with.is_empty() {
            let why = "holds provider settings, which only a step with a `kind` can have; remove it";
            faults.push(FieldError::new(at(WITH, ""), why));
        }
        return faults;
    };
    let Some(provider) = check::provider(step, isolation, providers) else {
        // `check::faults` has already reported that there is no such provider.
        return in_place("", shape::faults(&kinds::schema(kind), &settings)).collect();
    };
    let (keys, own) = (kinds::keys(kind), provider.settings_schema());
    let is_own = |key: &str| own.get("properties").is_some_and(|all| all.get(key).is_some());
    let mut faults = Vec::new();
    // A setting in the wrong place is a fault; its value is checked as if it stood in the right place.
    let (mut beside, mut with) = (step.settings.clone(), step.with.clone());
    beside.retain(|key, value| {
        let misplaced = !keys.contains(&key.as_str()) && is_own(key);
        if misplaced {
            let why = format!("is a setting of the provider {}; move it under `{WITH}`", provider.name());
            faults.push(FieldError::new(at("", key), why));
            with.insert(key.clone(), value.take());
        }
        !misplaced
    });
    with.retain(|key, value| {
        let misplaced = keys.contains(&key.as_str());
        if misplaced {
            let why = format!("is a setting of the kind {}; move it beside `{WITH}`", kind.as_str());
            faults.push(FieldError::new(at(WITH, key), why));
            beside.insert(key.clone(), value.take());
        }
        !misplaced
    });
    faults.extend(in_place("", shape::faults(&kinds::schema(kind), &Value::Object(beside.clone()))));
    faults.extend(in_place(WITH, shape::faults(&own, &Value::Object(with.clone()))));
    if faults.is_empty() {
        beside.extend(with);
        let meaning = provider.check(&Value::Object(beside));
        let under = |path: &str| {
            let first = path.split(['.', '[']).next().unwrap_or_default();
            if first.is_empty() || keys.contains(&first) { "" } else { WITH }
        };
        faults.extend(
            meaning
                .into_iter()
                .map(|fault| FieldError::new(at(under(&fault.path), &fault.path), fault.message)),
        );
    }
    faults
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tenantry_model::Failure;
    use tenantry_provider::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};

    use super::*;

    /// A provider with settings that are named as keys of a step.
    struct Odd;

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the shape counts")]
    struct Settings {
        mode: String,
        timeout: u32,
        speed: Option<u32>,
    }

    #[async_trait]
    impl Provider for Odd {
        fn name(&self) -> &str {
            "odd"
        }
        fn kind(&self) -> Kind {
            Kind::Bucket
        }
        fn settings_schema(&self) -> Value {
            tenantry_provider::settings::schema::<Settings>()
        }
        fn check(&self, settings: &Value) -> Vec<Fault> {
            let fast = settings["mode"] == "fast" && settings["quota_bytes"] == 1;
            let fault = |path: &str| Fault { path: path.to_owned(), message: "no".to_owned() };
            if fast { vec![fault("mode"), fault("quota_bytes")] } else { Vec::new() }
        }
        fn check_name(&self, name: &str) -> std::result::Result<(), String> {
            if name.len() > 60 || name.contains('!') { Err("no".to_owned()) } else { Ok(()) }
        }
        async fn ensure(&self, _: &Context, _: &Spec) -> std::result::Result<Ensured, Failure> {
            Ok(Ensured::default())
        }
        async fn observe(&self, _: &Context, _: &Spec) -> std::result::Result<Observed, Failure> {
            Ok(Observed::Absent)
        }
        async fn remove(&self, _: &Context, _: &Spec) -> std::result::Result<Removed, Failure> {
            Ok(Removed::default())
        }
        async fn probe(&self) -> std::result::Result<(), Failure> {
            Ok(())
        }
    }

    fn paths(step: &str) -> Vec<String> {
        paths_named("{}", step)
    }

    fn paths_named(names: &str, step: &str) -> Vec<String> {
        let text = format!(
            "{{ template: odd, version: 1, isolation: pool, names: {names}, steps: {{ bucket: {step}, \
             smoke_test: {{ needs: [bucket] }}, activate: {{ needs: [smoke_test] }} }} }}"
        );
        let faults = load(&text, &Registry::default().add(Odd)).err().map(|error| error.errors);
        faults.unwrap_or_default().into_iter().map(|fault| fault.path).collect()
    }

    #[test]
    fn a_provider_may_have_settings_that_are_named_as_keys_of_a_step() {
        let step =
            "{ kind: bucket, mode: inline, timeout: 5s, quota_bytes: 5, with: { mode: fast, timeout: 3 } }";
        assert_eq!(paths(step), [""; 0]);
    }

    #[test]
    fn names_that_a_provider_refuses_are_faults() {
        let step = "{ kind: bucket, with: { mode: slow, timeout: 3 } }";
        for (names, faults) in [
            ("{}", &[][..]),
            ("{ bucket: 'x-{id}' }", &[]),
            ("{ bucket: 'x!{id}' }", &["names.bucket"]),
            ("{ bucket: 'x-{slug}' }", &["names.bucket"]),
        ] {
            assert_eq!(paths_named(names, step), faults, "{names}: with the longest slug");
        }
    }

    #[test]
    fn every_fault_of_settings_is_named_with_its_path() {
        for (step, expected) in [
            (
                "{ kind: bucket, quota: 5, with: { mode: fast, timeout: soon, colour: red } }",
                &["steps.bucket.quota", "steps.bucket.with.colour", "steps.bucket.with.timeout"][..],
            ),
            ("{ kind: bucket }", &["steps.bucket.with.mode", "steps.bucket.with.timeout"]),
            (
                "{ kind: bucket, with: { mode: fast, timeout: 3, quota_bytes: 5 } }",
                &["steps.bucket.with.quota_bytes"],
            ),
            (
                "{ kind: bucket, quota: 5, with: { mode: fast, timeout: 3, quota_bytes: many } }",
                &["steps.bucket.with.quota_bytes", "steps.bucket.quota", "steps.bucket.quota_bytes"],
            ),
            (
                "{ kind: bucket, speed: high, with: { mode: fast, timeout: 3 } }",
                &["steps.bucket.speed", "steps.bucket.with.speed"],
            ),
            (
                "{ kind: bucket, quota_bytes: 1, with: { mode: fast, timeout: 3 } }",
                &["steps.bucket.with.mode", "steps.bucket.quota_bytes"],
            ),
        ] {
            assert_eq!(paths(step), expected, "{step}");
        }
    }
}
