//! The shape of a JSON document against a JSON Schema: every fault with the path of its field, in words for people.

use jsonschema::error::ValidationErrorKind as K;
use serde_json::Value;

use crate::error::FieldError;

/// All faults of `value` against `schema`, in document order.
pub fn faults(schema: &Value, value: &Value) -> Vec<FieldError> {
    match jsonschema::validator_for(schema) {
        Ok(validator) => faults_by(&validator, value),
        Err(why) => vec![FieldError::new("", format!("cannot be checked: {why}"))],
    }
}

/// The same with a validator that was compiled before.
pub fn faults_by(validator: &jsonschema::Validator, value: &Value) -> Vec<FieldError> {
    let mut faults: Vec<FieldError> =
        validator.iter_errors(value).flat_map(|error| explain(&error)).collect();
    find_nul(value, "", &mut faults);
    faults.sort_by(|a, b| a.path.cmp(&b.path));
    faults.dedup();
    faults
}

/// No registry keeps U+0000 in a text (PostgreSQL's documentation, 8.3), so no document may hold it.
fn find_nul(value: &Value, at: &str, faults: &mut Vec<FieldError>) {
    let found = match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(i, value)| find_nul(value, &format!("{at}[{i}]"), faults));
            false
        }
        Value::Object(map) => {
            for (name, value) in map {
                let dot = if at.is_empty() { "" } else { "." };
                find_nul(value, &format!("{at}{dot}{}", clip(name)), faults);
            }
            map.keys().any(|name| name.contains('\0'))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    };
    if found {
        faults.push(FieldError::new(at, "must not contain the character U+0000"));
    }
}

fn explain(error: &jsonschema::ValidationError<'_>) -> Vec<FieldError> {
    let at = path(error.instance_path().as_str());
    let under = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    match error.kind() {
        K::AdditionalProperties { unexpected } | K::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .map(|name| FieldError::new(under(&clip(name)), "is not known; check the spelling or remove it"))
            .collect(),
        K::Required { property } => {
            vec![FieldError::new(under(property.as_str().unwrap_or_default()), "is required")]
        }
        K::Type { kind } => {
            let mut expected = format!("{kind:?}").to_lowercase();
            for noise in ["single(", "multiple(", "jsontypeset", "(", ")", "[", "]"] {
                expected = expected.replace(noise, "");
            }
            vec![FieldError::new(at, format!("must be of type {expected}"))]
        }
        K::Enum { options } => vec![FieldError::new(at, format!("must be one of {options}"))],
        K::MaxLength { limit } => vec![FieldError::new(at, format!("must have at most {limit} characters"))],
        K::MinLength { limit } => vec![FieldError::new(at, format!("must have at least {limit} characters"))],
        K::Maximum { limit } => vec![FieldError::new(at, format!("must be at most {limit}"))],
        K::Minimum { limit } => vec![FieldError::new(at, format!("must be at least {limit}"))],
        K::MaxItems { limit } => vec![FieldError::new(at, format!("must have at most {limit} entries"))],
        K::MaxProperties { limit } => vec![FieldError::new(at, format!("must have at most {limit} entries"))],
        K::Pattern { pattern } => vec![FieldError::new(at, format!("must match {pattern}"))],
        K::Format { format } => vec![FieldError::new(at, format!("must be a valid {format}"))],
        K::AnyOf { context } | K::OneOfNotValid { context } => {
            // An optional object: what is wrong lies inside it, not with the object itself.
            let here = error.instance_path().as_str().len();
            let inside = context
                .iter()
                .find(|branch| !branch.is_empty() && branch.iter().all(|fault| inner_depth(fault) > here));
            match inside {
                Some(branch) => branch.iter().flat_map(explain).collect(),
                None => vec![FieldError::new(at, "has none of the allowed forms")],
            }
        }
        K::FalseSchema => vec![FieldError::new(at, "is not allowed here")],
        // The library's own words quote the value, which may be huge or secret.
        other => vec![FieldError::new(at, format!("does not satisfy `{}`", other.keyword()))],
    }
}

/// How deep the faulty place lies. A missing or an unknown field is a place inside its object.
fn inner_depth(error: &jsonschema::ValidationError<'_>) -> usize {
    let inside = matches!(error.kind(), K::Required { .. } | K::AdditionalProperties { .. });
    error.instance_path().as_str().len() + usize::from(inside)
}

/// From a JSON pointer to the way people write paths: `/a/0/b` is `a[0].b`.
fn path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&clip(&part));
        }
    }
    path
}

/// A name that a client made up, cut and without control characters: it is shown back.
pub(crate) fn clip(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
