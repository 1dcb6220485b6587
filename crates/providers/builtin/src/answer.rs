//! What a command or another service answers to a verb: JSON of one of three shapes. An answer of another shape is a lie
//! or a fault over there; what the call did is then not known.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tenantry_model::Failure;

use crate::redact;
use tenantry_provider::verbs::{Ensured, Observed, Removed, Spec};

/// Longest answer, in bytes.
pub const MAX: usize = 1024 * 1024;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Make it so.
    Ensure,
    /// What is there?
    Observe,
    /// Make it not so.
    Remove,
}

impl Asked {
    /// The word in the request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ensure => "ensure",
            Self::Observe => "observe",
            Self::Remove => "remove",
        }
    }
}

/// The request: `{"verb": …, "spec": …}` in one line. The spec holds no secret.
pub fn request(asked: Asked, spec: &Spec) -> String {
    let mut spec = json!(spec);
    if let Some(spec) = spec.as_object_mut() {
        // Ours: it says how to find what an earlier attempt left running.
        spec.remove("note");
    }
    json!({ "verb": asked.as_str(), "spec": spec }).to_string()
}

#[derive(Deserialize)]
struct Made {
    #[serde(default)]
    outputs: Map<String, Value>,
    #[serde(default)]
    foreign: bool,
}

#[derive(Deserialize)]
struct Seen {
    #[serde(default)]
    present: Option<bool>,
    #[serde(default)]
    healthy: bool,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    fingerprint: String,
    #[serde(default)]
    foreign: bool,
}

#[derive(Deserialize)]
struct Gone {
    #[serde(default)]
    receipt: Map<String, Value>,
}

fn parse<T: DeserializeOwned>(answer: &[u8], shape: &str) -> Result<T, Failure> {
    // By way of a map, because a struct would also be read from a list. The parser's own words could quote the answer.
    let map: Result<Map<String, Value>, _> = serde_json::from_slice(answer);
    let bad = |_| Failure::unknown("bad_answer", format!("the answer is not {shape}"));
    map.and_then(|map| T::deserialize(Value::Object(map))).map_err(bad)
}

/// An answer to `ensure`; nothing at all stands for no outputs.
pub fn ensured(answer: &[u8], spec: &Spec) -> Result<Ensured, Failure> {
    let answer = answer.trim_ascii();
    let made: Made = parse(if answer.is_empty() { b"{}" } else { answer }, "{\"outputs\": {…}}")?;
    if made.foreign {
        return Err(Failure::fatal(
            "name_taken",
            "a thing of this name belongs to somebody else; it was not touched",
        ));
    }
    Ok(Ensured { outputs: redact::document(Value::Object(made.outputs), &spec.tenant), writes: Vec::new() })
}

/// An answer to `observe`.
pub fn observed(answer: &[u8]) -> Result<Observed, Failure> {
    let shape = "{\"present\": true, \"healthy\": …, \"version\": …, \"fingerprint\": …}, {\"present\": false} or {\"foreign\": true}";
    let seen: Seen = parse(answer.trim_ascii(), shape)?;
    match seen.present {
        _ if seen.foreign => Ok(Observed::Foreign),
        Some(true) => Ok(Observed::present(seen.healthy, seen.version, seen.fingerprint)),
        Some(false) => Ok(Observed::Absent),
        None => Err(Failure::unknown("bad_answer", format!("the answer is not {shape}"))),
    }
}

/// An answer to `remove`; nothing at all stands for an empty receipt.
pub fn removed(answer: &[u8], spec: &Spec) -> Result<Removed, Failure> {
    let answer = answer.trim_ascii();
    let gone: Gone = parse(if answer.is_empty() { b"{}" } else { answer }, "{\"receipt\": {…}}")?;
    Ok(Removed { receipt: redact::document(Value::Object(gone.receipt), &spec.tenant), writes: Vec::new() })
}
