//! Custom resources, which have no kind of their own: all settings belong to the provider, under `with`, and the outputs
//! are any object.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::KindSettings;
use crate::verbs::Kind;

/// Settings of the kind; it has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomSettings {}

impl KindSettings for CustomSettings {
    const KIND: Kind = Kind::Custom;
    const KEYS: &'static [&'static str] = &[];
}

/// Outputs of a custom resource.
pub type CustomOutputs = Map<String, Value>;
