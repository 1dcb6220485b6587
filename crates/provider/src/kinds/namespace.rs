//! Namespaces: where a tenant's workload runs.
//!
//! Every provider limits what all workloads of the tenant may take together, and lets none of them reach another
//! tenant's. How the limits are expressed depends on the platform, so they are the provider's settings, under `with`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KindSettings;
use crate::verbs::Kind;

/// What a step says of a namespace: nothing that all platforms share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamespaceSettings {}

impl KindSettings for NamespaceSettings {
    const KIND: Kind = Kind::Namespace;
    const KEYS: &'static [&'static str] = &[];
}

/// What is known of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamespaceOutputs {
    /// Its name.
    pub namespace: String,
}
