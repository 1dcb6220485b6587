//! Request files: requests for tenants as YAML (documents or a list), JSON (an object or an array) or JSON
//! lines. The idempotency key of a request is derived from its content, so submitting a file again creates
//! nothing twice.

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api;

/// One request of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Position in the file, from 1.
    pub number: usize,
    /// The request's body.
    pub document: Value,
}

impl Entry {
    /// The tenant's name in the request, for display.
    pub fn name(&self) -> &str {
        self.document.get("tenant_name").and_then(Value::as_str).unwrap_or("no name")
    }

    /// The idempotency key: equal for requests with equal content, independent of position and formatting.
    pub fn key(&self) -> String {
        let digest = Sha256::digest(canonical(&self.document).as_bytes());
        format!("request-{}", hex::encode(digest))
    }
}

/// Parses a file of requests. Its format follows from the extension of `name`, else from the text.
pub fn read_entries(name: &str, text: &str) -> Result<Vec<Entry>, String> {
    let documents = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("yaml" | "yml") => yaml(text)?,
        Some("jsonl" | "ndjson") => lines(text)?,
        Some("json") => vec![json(text)?],
        _ if !text.trim_start().starts_with(['{', '[']) => yaml(text)?,
        _ => match json(text) {
            Ok(document) => vec![document],
            // Neither one document nor JSON lines: the first error is the useful one.
            Err(error) => lines(text).map_err(|_| error)?,
        },
    };
    let flat = documents.into_iter().flat_map(|document| match document {
        Value::Array(entries) => entries,
        Value::Null => Vec::new(),
        document => vec![document],
    });
    let entries: Vec<Entry> =
        flat.enumerate().map(|(i, document)| Entry { number: i + 1, document }).collect();
    match entries.iter().find(|entry| !entry.document.is_object()) {
        Some(entry) => {
            Err(format!("entry {} is not a request: expected an object with fields", entry.number))
        }
        None if entries.is_empty() => Err("the file contains no requests".to_owned()),
        None => Ok(entries),
    }
}

fn json(text: &str) -> Result<Value, String> {
    api::parse_json(text.as_bytes()).map_err(|error| error.to_string())
}

fn lines(text: &str) -> Result<Vec<Value>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(i, line)| json(line).map_err(|error| format!("line {}: {error}", i + 1))).collect()
}

fn yaml(text: &str) -> Result<Vec<Value>, String> {
    let documents = yaml_serde::Deserializer::from_str(text);
    documents
        .map(|document| {
            // Through YAML's own value type, which rejects duplicate keys.
            let value = yaml_serde::Value::deserialize(document)
                .map_err(|error| format!("it is not YAML: {error}"))?;
            serde_json::to_value(value).map_err(|error| format!("it cannot be converted to JSON: {error}"))
        })
        .collect()
}

/// Serializes JSON with the keys of every object in order.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let mut names: Vec<&String> = object.keys().collect();
            names.sort();
            let fields = names.into_iter().map(|name| {
                format!(
                    "{}:{}",
                    Value::from(name.as_str()),
                    object.get(name).map(canonical).unwrap_or_default()
                )
            });
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(array) => format!("[{}]", array.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str, text: &str) -> Vec<String> {
        read_entries(name, text).unwrap().iter().map(|entry| entry.name().to_owned()).collect()
    }

    #[test]
    fn all_formats_give_the_same_entries() {
        for (name, text) in [
            ("a.yaml", "tenant_name: A\n---\ntenant_name: B\n"),
            ("a.yml", "- tenant_name: A\n- tenant_name: B\n"),
            ("a.yaml", "---\n- tenant_name: A\n---\n---\ntenant_name: B\n"),
            ("a.json", r#"[{"tenant_name":"A"},{"tenant_name":"B"}]"#),
            ("a.jsonl", "{\"tenant_name\":\"A\"}\n\n{\"tenant_name\":\"B\"}\n"),
            ("-", "{\"tenant_name\":\"A\"}\n{\"tenant_name\":\"B\"}"),
            ("-", "- {tenant_name: A}\n- {tenant_name: B}"),
            ("-", "[{\"tenant_name\":\"A\"},\n {\"tenant_name\":\"B\"}]"),
        ] {
            assert_eq!(names(name, text), ["A", "B"], "{text}");
        }
        assert_eq!(names("a.json", r#"{"tenant_name":"A"}"#), ["A"]);
    }

    #[test]
    fn the_idempotency_key_depends_on_content_only() {
        let a = read_entries("-", "tenant_name: A\nslug: a\n").unwrap().remove(0);
        let b = read_entries("-", r#"[{"x": 1}, {"slug": "a", "tenant_name": "A"}]"#).unwrap().remove(1);
        assert_eq!(a.key(), b.key());
        let c = read_entries("-", "tenant_name: A\nslug: b\n").unwrap().remove(0);
        assert_ne!(a.key(), c.key());
        assert!(a.key().len() <= 255);
    }

    #[test]
    fn errors_name_their_position() {
        for (name, text, says) in [
            ("a.yaml", "a: [", "not YAML"),
            ("a.yaml", "a: 1\na: 2", "duplicate"),
            ("a.json", "{\"a\":\n", "line 2"),
            ("a.json", r#"{"a":1,"a":2}"#, "duplicate key"),
            ("a.jsonl", "{}\n{\n", "line 2"),
            ("a.json", "[{}, 7]", "entry 2"),
            ("a.yaml", "", "no requests"),
            ("-", "{\"a\": 1}\n{\"a\": }", "line 2"),
        ] {
            let error = read_entries(name, text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
