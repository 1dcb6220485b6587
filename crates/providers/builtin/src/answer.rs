//! Requests to and responses from commands and HTTP services that implement the provider verbs. A response
//! that does not match the schema of its verb is an error with unknown outcome.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tenantry_model::Failure;

use crate::redact;
use tenantry_provider::verbs::{Ensured, Observed, Removed, Spec};

/// Longest response, in bytes.
pub const MAX: usize = 1024 * 1024;

/// The verb of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Create or update the resource.
    Ensure,
    /// Report the resource's state.
    Observe,
    /// Delete the resource.
    Remove,
}

impl Asked {
    /// The verb as it stands in the request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ensure => "ensure",
            Self::Observe => "observe",
            Self::Remove => "remove",
        }
    }
}

/// The request as one line of JSON: `{"verb": …, "spec": …}`. The spec holds no secret.
pub fn request(asked: Asked, spec: &Spec) -> String {
    let mut spec = json!(spec);
    if let Some(spec) = spec.as_object_mut() {
        // Internal to the provider: how to find the processes of an earlier attempt.
        spec.remove("note");
    }
    json!({ "verb": asked.as_str(), "spec": spec }).to_string()
}

#[derive(Deserialize)]
struct EnsureResponse {
    #[serde(default)]
    outputs: Map<String, Value>,
    #[serde(default)]
    foreign: bool,
}

#[derive(Deserialize)]
struct ObserveResponse {
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
struct RemoveResponse {
    #[serde(default)]
    receipt: Map<String, Value>,
}

fn bad_answer(shape: &str) -> Failure {
    Failure::unknown("bad_answer", format!("the response does not match {shape}")).wrong_answer()
}

fn parse<T: DeserializeOwned>(answer: &[u8], shape: &str) -> Result<T, Failure> {
    // Through a map, because serde would also read the struct from a list. The parser's error is dropped: it
    // may quote the response.
    let map: Result<Map<String, Value>, _> = serde_json::from_slice(answer);
    map.and_then(|map| T::deserialize(Value::Object(map))).map_err(|_| bad_answer(shape))
}

/// Parses a response to `ensure`. An empty response means no outputs.
pub fn ensured(answer: &[u8], spec: &Spec) -> Result<Ensured, Failure> {
    let answer = answer.trim_ascii();
    let made: EnsureResponse = parse(if answer.is_empty() { b"{}" } else { answer }, "{\"outputs\": {…}}")?;
    if made.foreign {
        return Err(Failure::fatal(
            "name_taken",
            "the name is taken by an object with another owner tag; nothing was changed",
        ));
    }
    Ok(Ensured { outputs: redact::document(Value::Object(made.outputs), &spec.tenant), writes: Vec::new() })
}

/// Parses a response to `observe`.
pub fn observed(answer: &[u8]) -> Result<Observed, Failure> {
    let shape = "{\"present\": true, \"healthy\": …, \"version\": …, \"fingerprint\": …}, {\"present\": false} or {\"foreign\": true}";
    let seen: ObserveResponse = parse(answer.trim_ascii(), shape)?;
    match seen.present {
        _ if seen.foreign => Ok(Observed::Foreign),
        Some(true) => Ok(Observed::present(seen.healthy, seen.version, seen.fingerprint)),
        Some(false) => Ok(Observed::Absent),
        None => Err(bad_answer(shape)),
    }
}

/// Parses a response to `remove`. An empty response means an empty receipt.
pub fn removed(answer: &[u8], spec: &Spec) -> Result<Removed, Failure> {
    let answer = answer.trim_ascii();
    let gone: RemoveResponse = parse(if answer.is_empty() { b"{}" } else { answer }, "{\"receipt\": {…}}")?;
    Ok(Removed { receipt: redact::document(Value::Object(gone.receipt), &spec.tenant), writes: Vec::new() })
}
