//! Certificate resources: TLS certificates for a tenant's host names.
//!
//! Every provider states in its outputs when the certificate is due for renewal. From then on a background task repairs
//! the resource, and `ensure` issues a new certificate. Outputs, receipts and messages contain no private key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::Timestamp;

use super::KindSettings;
use crate::verbs::Kind;

/// Settings of a certificate step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateSettings {
    /// Host names of the certificate; by default the names that an earlier step, such as the DNS step, has created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
}

impl KindSettings for CertificateSettings {
    const KIND: Kind = Kind::Certificate;
    const KEYS: &'static [&'static str] = &["names"];
}

/// Outputs of a certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertificateOutputs {
    /// Host names of the certificate.
    pub names: Vec<String>,
    /// End of the validity.
    pub not_after: Timestamp,
    /// Time from which the certificate is due for renewal.
    pub renew_at: Timestamp,
}
