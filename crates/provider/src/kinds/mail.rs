//! Mail: one message to the tenant's first administrator.
//!
//! Every provider delivers a message at most once per resource: a repeated `ensure` finds the first one. A message that
//! was delivered is not taken back; `remove` deletes what the provider still keeps of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KindSettings;
use crate::verbs::Kind;

/// What a step says of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MailSettings {
    /// The mail template.
    pub template: String,
    /// What else is filled in, as `values.NAME`. Nothing personal: it is in the ledger in clear.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// More values, as a JSON object that is sealed under the tenant's key: for what the ledger must not have in clear.
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

/// What is known of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MailOutputs {
    /// The mail template.
    pub template: String,
    /// Language of the message.
    pub locale: String,
}
