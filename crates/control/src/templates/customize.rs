//! The block `customizations` of a template: the keys that a request may set, the rules that must hold, and
//! the required approvals. Checks the block, and compiles its rules (CEL), when the template is read. Pure,
//! no I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Template;
use super::expression::Expression;
use crate::error::FieldError;
use tenantry_model::{Permission, Scope};

/// The values that a request may set, with rules and approvals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Customizations {
    /// Keys that a request may set: `branding`, `custom_domain`, `encryption_level`, `integrations`,
    /// `settings`, or the name of one of the template's quotas.
    pub allowed: BTreeSet<String>,
    /// Rules that must hold for every tenant.
    pub rules: Vec<Rule>,
    /// Approvals: if a request sets the key, a caller with one of these scopes must approve before any
    /// resource is created. `admin` may always approve.
    pub approvals: BTreeMap<String, BTreeSet<Scope>>,
}

/// A rule that must hold for a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// CEL expression that must be true, such as `storage_bytes <= 10 * TiB`.
    pub rule: String,
    /// Message to the customer if it is not true.
    pub message: String,
}

/// Keys that are no quotas, each with the request's field that sets it.
pub(crate) const KEYS: [(&str, &str); 5] = [
    ("branding", "configuration.branding"),
    ("custom_domain", "configuration.custom_domain"),
    ("encryption_level", "compliance.encryption_level"),
    ("integrations", "configuration.integrations"),
    ("settings", "configuration.settings"),
];

/// Variables of rules besides keys and quotas.
const FACTS: [&str; 6] =
    ["billing_cycle", "data_residency", "features", "plan", "region", "retention_period"];

/// Units of quotas in rules, each with its factor.
pub(crate) const UNITS: [(&str, i64); 4] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Returns the faults of a template's block.
pub(crate) fn faults(template: &Template) -> Vec<FieldError> {
    let Customizations { allowed, rules, approvals } = &template.customizations;
    let mut faults = Vec::new();
    let mut fault = |path: String, message: String| faults.push(FieldError::new(path, message));
    let known: Vec<&str> =
        KEYS.iter().map(|(key, _)| *key).chain(template.quotas.keys().map(String::as_str)).collect();
    for key in allowed.iter().filter(|key| !known.contains(&key.as_str())) {
        let message = format!("`{key}` cannot be customised; known keys: {}", known.join(", "));
        fault("customizations.allowed".to_owned(), message);
    }
    for (key, scopes) in approvals {
        let at = format!("customizations.approvals.{key}");
        if !allowed.contains(key) {
            fault(at.clone(), "is not listed in `allowed`; add it there".to_owned());
        }
        if template.steps.contains_key(&approval_step(key)) {
            fault(at.clone(), format!("there is a step `{}` already", approval_step(key)));
        }
        if let Some(why) = approvers_fault(scopes) {
            fault(at, why);
        }
    }
    for (i, Rule { rule, message }) in rules.iter().enumerate() {
        let at = format!("customizations.rules.{i}");
        if message.trim().is_empty() {
            fault(format!("{at}.message"), "must not be blank: say which values are allowed".to_owned());
        }
        match Expression::compile(rule) {
            Err(why) => fault(format!("{at}.rule"), why),
            Ok(expression) => {
                let spoken_of = variables(template);
                for name in expression.variables().filter(|name| !spoken_of.contains(*name)) {
                    let all: Vec<&str> = spoken_of.iter().map(String::as_str).collect();
                    let message = format!("there is no `{name}`; there are {}", all.join(", "));
                    fault(format!("{at}.rule"), message);
                }
            }
        }
    }
    faults
}

/// Returns the fault of a set of approving scopes, if it has one.
pub(super) fn approvers_fault(scopes: &BTreeSet<Scope>) -> Option<String> {
    let may = |scope: &Scope| scope.allows(Permission::SignalOperations);
    if scopes.is_empty() || !scopes.iter().all(may) {
        let able: Vec<String> = Scope::ALL.iter().filter(|s| may(s)).map(|s| json!(s).to_string()).collect();
        return Some(format!("must list only scopes that may approve: {}", able.join(", ").replace('"', "")));
    }
    None
}

/// Key of the step that waits for the approval of a customized key.
pub(crate) fn approval_step(key: &str) -> String {
    format!("approve_{key}")
}

/// Names of all variables that a rule may use.
fn variables(template: &Template) -> BTreeSet<String> {
    let keys = KEYS.iter().map(|(key, _)| *key).chain(FACTS).chain(UNITS.iter().map(|(unit, _)| *unit));
    keys.map(str::to_owned).chain(template.quotas.keys().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn template(customizations: Value) -> Template {
        serde_json::from_value(json!({
            "template": "t", "version": 1, "isolation": "database", "customizations": customizations,
            "quotas": { "storage_bytes": "1TiB", "seats": 5 },
            "steps": { "smoke_test": {}, "activate": { "needs": ["smoke_test"] } }
        }))
        .unwrap()
    }

    fn paths(faults: &[FieldError]) -> Vec<&str> {
        faults.iter().map(|fault| fault.path.as_str()).collect()
    }

    #[test]
    fn a_faulty_block_is_refused_as_a_whole() {
        let faulty = template(json!({
            "allowed": ["colour", "branding"],
            "rules": [
                { "rule": "storage_bytes <=", "message": "no" }, { "rule": "disk > 3", "message": "no" },
                { "rule": "seats > 3", "message": " " }
            ],
            "approvals": { "seats": ["operator"], "branding": ["signup"] }
        }));
        let faults = super::faults(&faulty);
        assert_eq!(
            paths(&faults),
            [
                "customizations.allowed",
                "customizations.approvals.branding",
                "customizations.approvals.seats",
                "customizations.rules.0.rule",
                "customizations.rules.1.rule",
                "customizations.rules.2.message"
            ],
            "{faults:?}"
        );
    }
}
