//! DNS: the names by which a tenant is reached.
//!
//! Every provider says that a name exists, or is gone, only after the name servers answer so. A custom domain is
//! served only after its owner has proven it, and for one tenant alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KindSettings;
use crate::verbs::Kind;

/// What a step says of a tenant's names. The planner fills in the custom domain from the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DnsSettings {
    /// A domain of the customer's own. It is served once its owner has proven it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_domain: Option<String>,
}

impl KindSettings for DnsSettings {
    const KIND: Kind = Kind::Dns;
    const KEYS: &'static [&'static str] = &["custom_domain"];
}

/// What is known of a tenant's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsOutputs {
    /// The host under the provider's zone.
    pub host: String,
    /// All names, the host first. A certificate step proves these.
    pub names: Vec<String>,
}
