//! Request files: one or many requests for tenants, as YAML (documents or a list), JSON (an object or an array) or JSON
//! lines. Each has a key of its own that follows from its content, so a file can be given again without harm.

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place in the file, from 1.
    pub place: usize,
    /// What to send.
    pub document: Value,
}

impl Entry {
    /// The name that people gave it, as far as it has one.
    pub fn name(&self) -> &str {
        self.document.get("tenant_name").and_then(Value::as_str).unwrap_or("no name")
    }

    /// The idempotency key: the same for the same content, wherever it stands and however it is written.
    pub fn key(&self) -> String {
        let digest = Sha256::digest(canonical(&self.document).as_bytes());
        format!("request-{}", hex::encode(digest))
    }
}

/// The requests in a file's text. `name` is the file's, whose ending says what it is; of anything else, the text does.
pub fn read_entries(name: &str, text: &str) -> Result<Vec<Entry>, String> {
    let documents = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("yaml" | "yml") => yaml(text)?,
        Some("jsonl" | "ndjson") => lines(text)?,
        Some("json") => vec![json(text)?],
        _ if !text.trim_start().starts_with(['{', '[']) => yaml(text)?,
        _ => match json(text) {
            Ok(document) => vec![document],
            // Neither one document nor lines of them: the first fault is the one to show.
            Err(why) => lines(text).map_err(|_| why)?,
        },
    };
    let flat = documents.into_iter().flat_map(|document| match document {
        Value::Array(entries) => entries,
        Value::Null => Vec::new(),
        document => vec![document],
    });
    let entries: Vec<Entry> =
        flat.enumerate().map(|(i, document)| Entry { place: i + 1, document }).collect();
    match entries.iter().find(|entry| !entry.document.is_object()) {
        Some(entry) => {
            Err(format!("entry {} is not a request: a request is an object with fields", entry.place))
        }
        None if entries.is_empty() => Err("there are no requests in it".to_owned()),
        None => Ok(entries),
    }
}

fn json(text: &str) -> Result<Value, String> {
    api::parse_json(text.as_bytes()).map_err(|why| why.to_string())
}

fn lines(text: &str) -> Result<Vec<Value>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(i, line)| json(line).map_err(|why| format!("line {}: {why}", i + 1))).collect()
}

fn yaml(text: &str) -> Result<Vec<Value>, String> {
    let documents = yaml_serde::Deserializer::from_str(text);
    documents
        .map(|document| {
            // By way of YAML's own value, which refuses a key that is given twice.
            let value =
                yaml_serde::Value::deserialize(document).map_err(|why| format!("it is not YAML: {why}"))?;
            serde_json::to_value(value).map_err(|why| format!("it cannot be sent as JSON: {why}"))
        })
        .collect()
}

/// JSON with the names of every object in order.
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
    fn every_form_gives_the_same_entries() {
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
    fn the_key_follows_the_content() {
        let a = read_entries("-", "tenant_name: A\nslug: a\n").unwrap().remove(0);
        let b = read_entries("-", r#"[{"x": 1}, {"slug": "a", "tenant_name": "A"}]"#).unwrap().remove(1);
        assert_eq!(a.key(), b.key());
        let c = read_entries("-", "tenant_name: A\nslug: b\n").unwrap().remove(0);
        assert_ne!(a.key(), c.key());
        assert!(a.key().len() <= 255);
    }

    #[test]
    fn faults_say_where() {
        for (name, text, says) in [
            ("a.yaml", "a: [", "not YAML"),
            ("a.yaml", "a: 1\na: 2", "duplicate"),
            ("a.json", "{\"a\":\n", "line 2"),
            ("a.json", r#"{"a":1,"a":2}"#, "twice"),
            ("a.jsonl", "{}\n{\n", "line 2"),
            ("a.json", "[{}, 7]", "entry 2"),
            ("a.yaml", "", "no requests"),
            ("-", "{\"a\": 1}\n{\"a\": }", "line 2"),
        ] {
            let why = read_entries(name, text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
    }
}
