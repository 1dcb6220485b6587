//! Anything that has no kind of its own: all settings are the provider's, under `with`, and outputs are any object.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::KindSettings;
use crate::verbs::Kind;

/// What a step says of a resource without a kind of its own: nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomSettings {}

impl KindSettings for CustomSettings {
    const KIND: Kind = Kind::Custom;
    const KEYS: &'static [&'static str] = &[];
}

/// What is known of it.
pub type CustomOutputs = Map<String, Value>;
