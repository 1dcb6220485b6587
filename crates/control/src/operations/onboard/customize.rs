//! Checks the customizations of a request: whether the template allows each, whether the template's rules
//! hold, and which approvals the request needs. Also computes the tenant's quotas. Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tenantry_model::quota::Quotas;
use tenantry_model::{Plan, Scope};

use super::request::{CreateTenant, EncryptionLevel};
use crate::error::FieldError;
use crate::templates::Template;
use crate::templates::customize::{KEYS, Rule, UNITS};
use crate::templates::expression::{Expression, Variables};

/// The customizations that a request asks for, by key: the request's field and its value.
fn asked(request: &CreateTenant) -> BTreeMap<String, (String, Value)> {
    let configuration = request.configuration.clone().unwrap_or_default();
    let level = request.compliance.as_ref().and_then(|compliance| compliance.encryption_level);
    let given = [
        ("branding", configuration.branding.map(Value::Object)),
        ("custom_domain", configuration.custom_domain.map(Value::String)),
        // Every tenant has the standard level, so asking for it is no customization.
        ("encryption_level", level.filter(|level| *level == EncryptionLevel::Enhanced).map(|l| json!(l))),
        ("integrations", configuration.integrations.map(Value::Array)),
        ("settings", configuration.settings.map(Value::Object)),
    ];
    let keys = KEYS
        .iter()
        .zip(given)
        .filter_map(|((key, at), (_, value))| Some(((*key).to_owned(), ((*at).to_owned(), value?))));
    let quotas =
        request.quotas.iter().map(|(name, quota)| (name.clone(), (format!("quotas.{name}"), json!(quota))));
    keys.chain(quotas).collect()
}

/// The tenant's quotas: the request's override the plan's, which override the template's.
pub(super) fn quotas(template: &Template, plan: &Plan, request: &CreateTenant) -> Quotas {
    let mut quotas = template.quotas.clone();
    quotas.extend(plan.quotas.iter().map(|(name, quota)| (name.clone(), *quota)));
    quotas.extend(request.quotas.iter().map(|(name, quota)| (name.clone(), *quota)));
    quotas
}

/// An error for each customization that the template does not allow, at the request's field.
pub(super) fn refused(template: &Template, request: &CreateTenant) -> Vec<FieldError> {
    let not_allowed =
        asked(request).into_iter().filter(|(key, _)| !template.customizations.allowed.contains(key));
    not_allowed
        .map(|(key, (at, _))| {
            FieldError::new(at, format!("Customization {key} not allowed for this template"))
        })
        .collect()
}

/// An error for each rule that does not hold: the rule's message, at the first customized field that the rule
/// names.
pub(super) fn broken_rules(
    template: &Template,
    plan: &Plan,
    request: &CreateTenant,
    region: &str,
) -> Vec<FieldError> {
    if template.customizations.rules.is_empty() {
        return Vec::new();
    }
    let asked = asked(request);
    let variables = variables(template, plan, request, region, &asked);
    let broken = template.customizations.rules.iter().filter_map(|Rule { rule, message }| {
        let expression = Expression::compile(rule).ok()?;
        let message = match expression.evaluate(&variables) {
            Ok(Value::Bool(true)) => return None,
            Ok(Value::Bool(false)) => message.clone(),
            // A rule without a boolean result counts as broken.
            Ok(_) | Err(_) => format!("{message} (the rule `{rule}` cannot be evaluated for this request)"),
        };
        let about = expression.variables().find_map(|name| asked.get(name)).map(|(at, _)| at.as_str());
        Some(FieldError::new(about.unwrap_or_default(), message))
    });
    broken.collect()
}

/// The approvals that a request needs: the key, the scopes that may approve, and the requested value. Only
/// numbers are shown, because other values may contain personal data.
pub(super) fn approvals<'a>(
    template: &'a Template,
    request: &CreateTenant,
) -> Vec<(String, &'a BTreeSet<Scope>, Value)> {
    let needed = asked(request).into_iter().filter_map(|(key, (_, value))| {
        let scopes = template.customizations.approvals.get(&key)?;
        Some((key, scopes, if value.is_number() { value } else { Value::Null }))
    });
    needed.collect()
}

/// The variables of rules: values of the request and the plan, customizations, the tenant's quotas, and units.
fn variables(
    template: &Template,
    plan: &Plan,
    request: &CreateTenant,
    region: &str,
    asked: &BTreeMap<String, (String, Value)>,
) -> Variables {
    let mut variables = Variables::default();
    let compliance = request.compliance.clone().unwrap_or_default();
    let features = request.subscription.features.as_ref().unwrap_or(&plan.features);
    let facts = [
        ("billing_cycle", json!(request.subscription.billing_cycle)),
        ("data_residency", json!(compliance.data_residency)),
        ("features", json!(features)),
        ("plan", json!(plan.name)),
        ("region", json!(region)),
        ("retention_period", json!(compliance.retention_period)),
    ];
    for (name, value) in &facts {
        variables.set(name, value);
    }
    for (key, _) in KEYS {
        variables.set(key, asked.get(key).map_or(&Value::Null, |(_, value)| value));
    }
    for (name, quota) in quotas(template, plan, request) {
        variables.set(&name, &json!(i64::try_from(quota.0).unwrap_or(i64::MAX)));
    }
    for (unit, factor) in UNITS {
        variables.set(unit, &json!(factor));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::templates::customize::faults;

    fn template(customizations: Value) -> Template {
        serde_json::from_value(json!({
            "template": "t", "version": 1, "isolation": "database", "customizations": customizations,
            "quotas": { "storage_bytes": "1TiB", "seats": 5 },
            "steps": { "smoke_test": {}, "activate": { "needs": ["smoke_test"] } }
        }))
        .unwrap()
    }

    fn plan() -> Plan {
        serde_json::from_value(
            json!({ "name": "p", "title": "P", "template": "t", "quotas": { "seats": 50 } }),
        )
        .unwrap()
    }

    fn request(more: Value) -> CreateTenant {
        let mut request = json!({
            "tenant_name": "Acme", "admin_user": { "email": "ada@example.com" }, "subscription": { "plan": "p" }
        });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        CreateTenant::read(&request).unwrap()
    }

    fn paths(faults: &[FieldError]) -> Vec<&str> {
        faults.iter().map(|fault| fault.path.as_str()).collect()
    }

    #[test]
    fn what_is_not_allowed_is_refused_by_name() {
        let template = template(json!({ "allowed": ["branding", "storage_bytes"] }));
        let allowed =
            request(json!({ "quotas": { "storage_bytes": "2TiB" }, "configuration": { "branding": {} } }));
        assert_eq!(refused(&template, &allowed), []);
        let asks = request(json!({
            "quotas": { "seats": 6 }, "compliance": { "encryption_level": "enhanced" },
            "configuration": { "custom_domain": "a.example", "settings": {} }
        }));
        let faults = refused(&template, &asks);
        assert_eq!(
            paths(&faults),
            [
                "configuration.custom_domain",
                "compliance.encryption_level",
                "quotas.seats",
                "configuration.settings"
            ]
        );
        assert_eq!(faults[0].message, "Customization custom_domain not allowed for this template");
        let standard = request(json!({ "compliance": { "encryption_level": "standard" } }));
        assert_eq!(refused(&template, &standard), []);
    }

    #[test]
    fn rules_speak_of_what_the_tenant_would_get() {
        let rules = |rule: &str| {
            template(
                json!({ "allowed": ["storage_bytes", "branding"], "rules": [{ "rule": rule, "message": "no" }] }),
            )
        };
        let broken = |rule: &str, request: &CreateTenant| broken_rules(&rules(rule), &plan(), request, "eu");
        let plain = request(json!({}));
        for holds in [
            "storage_bytes <= 10 * TiB",
            "seats == 50",
            "plan == 'p' && region == 'eu' && custom_domain == null",
            "billing_cycle == 'monthly' || size(features) > 3",
        ] {
            assert_eq!(faults(&rules(holds)), [], "{holds}");
            assert_eq!(broken(holds, &plain), [], "{holds}");
        }
        let big = request(json!({ "quotas": { "storage_bytes": "11TiB" } }));
        assert_eq!(
            broken("storage_bytes <= 10 * TiB", &big),
            [FieldError::new("quotas.storage_bytes", "no")]
        );
        // No boolean result: the rule counts as broken, and the message says so.
        for unanswerable in ["branding.colour == 'red'", "seats", "retention_period > 3"] {
            let faults = broken(unanswerable, &plain);
            assert!(
                faults.len() == 1 && faults[0].message.starts_with("no (the rule"),
                "{unanswerable}: {faults:?}"
            );
        }
    }

    #[test]
    fn approvals_show_numbers_and_no_texts() {
        let template = template(json!({
            "allowed": ["storage_bytes", "branding"],
            "approvals": { "storage_bytes": ["operator"], "branding": ["admin"] }
        }));
        assert_eq!(faults(&template), []);
        let asks = request(
            json!({ "quotas": { "storage_bytes": 7 }, "configuration": { "branding": { "a": "b" } } }),
        );
        let needed: Vec<(String, Value)> =
            approvals(&template, &asks).into_iter().map(|(key, _, value)| (key, value)).collect();
        assert_eq!(needed, [("branding".to_owned(), Value::Null), ("storage_bytes".to_owned(), json!(7))]);
        assert!(approvals(&template, &request(json!({}))).is_empty());
    }
}
