//! Namespace resources, in which a tenant's workloads run.
//!
//! Every provider limits the total resources of the tenant's workloads and prevents them from reaching those of other
//! tenants. The form of the limits depends on the platform, so they are settings of the provider, under `with`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KindSettings;
use crate::verbs::Kind;

/// Settings of the kind; it has none, because the platforms have none in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamespaceSettings {}

impl KindSettings for NamespaceSettings {
    const KIND: Kind = Kind::Namespace;
    const KEYS: &'static [&'static str] = &[];
}

/// Outputs of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamespaceOutputs {
    /// Name of the namespace.
    pub namespace: String,
}
