//! Certificates: what proves a tenant's names.
//!
//! Every provider says in its outputs when the certificate is due for renewal: a background task repairs the resource
//! from then on, and `ensure` makes a new certificate. Private keys are in no output, receipt or message.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::Timestamp;

use super::KindSettings;
use crate::verbs::Kind;

/// What a step says of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateSettings {
    /// The names that the certificate proves. Without them, those that a step before this one has made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
}

impl KindSettings for CertificateSettings {
    const KIND: Kind = Kind::Certificate;
    const KEYS: &'static [&'static str] = &["names"];
}

/// What is known of a certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertificateOutputs {
    /// The names that it proves.
    pub names: Vec<String>,
    /// Its last instant.
    pub not_after: Timestamp,
    /// When it is due for renewal.
    pub renew_at: Timestamp,
}
