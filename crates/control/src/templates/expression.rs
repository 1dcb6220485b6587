//! Compiles the CEL expressions of templates, and converts between JSON and CEL values. Pure, no I/O.

use cel::objects::Key;
use cel::{Program, Value as Cel};
use serde_json::{Map, Value, json};

/// Longest expression, in bytes.
const MAX: usize = 2_000;

/// Compiles an expression. Returns the fault of an invalid one.
pub fn compile(text: &str) -> Result<Program, String> {
    if text.len() > MAX {
        return Err(format!("must have at most {MAX} bytes"));
    }
    Program::compile(text).map_err(|why| format!("is not a CEL expression: {why}"))
}

/// Names of the variables in an expression, sorted.
pub fn names(program: &Program) -> Vec<String> {
    let mut names: Vec<String> = program.references().variables().into_iter().map(str::to_owned).collect();
    names.sort();
    names
}

/// Converts JSON to CEL. Whole numbers become signed, like the literals in expressions, so that both can be
/// compared.
pub fn cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Cel::Int(whole),
            None => Cel::Float(number.as_f64().unwrap_or(f64::MAX)),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => values.iter().map(cel).collect::<Vec<_>>().into(),
        Value::Object(map) => {
            let entries = map.iter().map(|(name, value)| (name.clone(), cel(value)));
            entries.collect::<std::collections::HashMap<_, _>>().into()
        }
    }
}

/// Converts the result of an expression to JSON; none if JSON has no such value.
pub fn plain(value: &Cel) -> Option<Value> {
    Some(match value {
        Cel::Null => Value::Null,
        Cel::Bool(flag) => json!(flag),
        Cel::Int(whole) => json!(whole),
        Cel::UInt(whole) => json!(whole),
        Cel::Float(number) => json!(number),
        Cel::String(text) => json!(text.as_str()),
        Cel::List(values) => values.iter().map(plain).collect::<Option<Vec<_>>>()?.into(),
        Cel::Map(map) => {
            let entries = map.map.iter().map(|(key, value)| match key {
                Key::String(name) => Some((name.to_string(), plain(value)?)),
                _ => None,
            });
            entries.collect::<Option<Map<_, _>>>()?.into()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_survives() {
        let value =
            json!({ "a": [1, -2, 1.5, "ü", true, null, { "b": {} }], "c": 9_007_199_254_740_993_i64 });
        assert_eq!(plain(&cel(&value)), Some(value));
        let bytes = compile("b'abc'").unwrap().execute(&cel::Context::default()).unwrap();
        assert_eq!(plain(&bytes), None);
    }
}
