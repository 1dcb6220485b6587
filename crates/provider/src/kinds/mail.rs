//! Mail resources: one message to the tenant's first administrator.
//!
//! Every provider delivers a message at most once per resource: a repeated `ensure` finds the first one. `remove`
//! deletes the provider's copy; a delivered message cannot be recalled.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KindSettings;
use crate::verbs::Kind;

/// Settings of a mail step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MailSettings {
    /// Name of the mail template.
    pub template: String,
    /// Values for the template, which uses them as `values.NAME`. The ledger stores them unencrypted, so they must not
    /// contain personal data.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// Further values that the ledger must not store unencrypted: a JSON object, encrypted with the tenant's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

impl Default for MailSettings {
    fn default() -> Self {
        Self { template: "welcome".to_owned(), values: BTreeMap::new(), sealed: None }
    }
}

impl KindSettings for MailSettings {
    const KIND: Kind = Kind::Mail;
    const KEYS: &'static [&'static str] = &["template", "values", "sealed"];
}

/// Outputs of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MailOutputs {
    /// Name of the mail template.
    pub template: String,
    /// Language of the message.
    pub locale: String,
}
