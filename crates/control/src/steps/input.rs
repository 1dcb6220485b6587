//! What operations and steps remember of their beginning, and reading it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_engine::Operation;
use tenantry_model::{Failure, TenantId};
use tenantry_provider::Person;

use crate::planner::StepInput;

/// The kind of an operation that makes a tenant.
pub const ONBOARD: &str = "onboard";

/// The kind of an operation that makes so again what a tenant has.
pub const REPAIR: &str = "repair";

/// Kinds of steps that nobody may leave out: a tenant that is active has passed its smoke test (S0.37).
pub const VITAL: [&str; 2] = ["smoke_test", "activate"];

/// What an operation remembers of its beginning. Its fields are API: old ledgers must load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationInput {
    /// The plan's name.
    pub plan: String,
    /// The template's name.
    pub template: String,
    /// Its version: the operation keeps it whatever is published meanwhile.
    pub template_version: u32,
    /// Where the resources are.
    pub region: String,
    /// Language of seeds and mails.
    pub locale: String,
    /// How often the tenant was provisioned, this time included.
    pub generation: i64,
    /// `Personal`, sealed under the tenant's key.
    pub sealed: String,
    /// Who began it, or the operation that it was detached from: a principal's id.
    #[serde(default)]
    pub begun_by: String,
    /// Why, in the words of whoever asked for the tenant's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What may identify people; stands in the ledger only sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Personal {
    /// The slug.
    pub slug: String,
    /// The tenant's name.
    pub name: String,
    /// The first administrator.
    pub admin: Person,
}

/// The tenant that an operation changes.
pub fn tenant_id(operation: &Operation) -> Result<TenantId, Failure> {
    operation
        .subject
        .parse()
        .map_err(|why| Failure::fatal("bad_ledger", format!("the operation's tenant {why}")))
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    T::deserialize(value)
        .map_err(|why| Failure::fatal("bad_ledger", format!("the ledger's record does not fit: {why}")))
}

/// What a step says, or nothing.
pub(super) fn settings_of<T: serde::de::DeserializeOwned + Default>(input: &StepInput) -> Result<T, Failure> {
    if input.settings.is_null() { Ok(T::default()) } else { read(&input.settings) }
}

pub(super) fn read_text<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Failure> {
    // The text holds personal data: its error may quote it, so it is not passed on.
    serde_json::from_str(text)
        .map_err(|_| Failure::fatal("bad_ledger", "the ledger's sealed record does not fit"))
}
