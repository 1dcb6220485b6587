//! DNS resources: the host names of a tenant.
//!
//! `ensure` and `remove` of every provider succeed only after the name servers answer with the change. A custom domain is
//! served only after its owner has proven it, and only for one tenant.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KindSettings;
use crate::verbs::Kind;

/// Settings of a DNS step. The planner fills in the custom domain from the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DnsSettings {
    /// Domain of the customer. It is served once its owner has proven it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_domain: Option<String>,
}

impl KindSettings for DnsSettings {
    const KIND: Kind = Kind::Dns;
    const KEYS: &'static [&'static str] = &["custom_domain"];
}

/// Outputs of a DNS resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsOutputs {
    /// Host name in the provider's zone.
    pub host: String,
    /// All host names, the one in the provider's zone first. A certificate step uses them.
    pub names: Vec<String>,
}
