//! Compares two versions of a template: additions, removals and changes that affect tenants. The order of
//! steps, needs and rules does not affect tenants, so it is no difference. Pure, no I/O.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Template;

/// Differences between two versions of a template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateDiff {
    /// Name of the template.
    pub template: String,
    /// Version that is compared from.
    pub from: u32,
    /// Version that is compared to.
    pub to: u32,
    /// Changes, in the order of the template.
    pub changes: Vec<TemplateChange>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateChange {
    /// Path of the value, such as `steps.database.timeout`.
    pub path: String,
    /// Kind of the change.
    pub change: ChangeKind,
    /// Value in the first version; missing if it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// Value in the second version; missing if it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// Kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Only the second version has the value.
    Added,
    /// Only the first version has the value.
    Removed,
    /// The values differ.
    Changed,
}

/// Parts that are compared directly. Name and version differ anyway; steps are compared by key, regardless of
/// their order.
const PARTS: [&str; 6] = ["isolation", "expected", "on_failure", "quotas", "names", "customizations"];

/// Returns the differences between two versions that affect tenants.
pub fn diff(from: &Template, to: &Template) -> TemplateDiff {
    let (old, new) = (json!(from), json!(to));
    let mut changes = Vec::new();
    for part in PARTS {
        compare(part, old.get(part), new.get(part), &mut changes);
    }
    let removed = from.steps.keys().filter(|key| !to.steps.contains_key(*key));
    for key in to.steps.keys().chain(removed) {
        let step = |template: &Value| template.get("steps").and_then(|steps| steps.get(key)).cloned();
        compare(&format!("steps.{key}"), step(&old).as_ref(), step(&new).as_ref(), &mut changes);
    }
    TemplateDiff { template: to.template.clone(), from: from.version, to: to.version, changes }
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<TemplateChange>) {
    let kind = match (old, new) {
        _ if old == new => return,
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let removed = old.keys().filter(|key| !new.contains_key(*key));
            for key in new.keys().chain(removed) {
                compare(&format!("{path}.{key}"), old.get(key), new.get(key), changes);
            }
            return;
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if is_set(path) => {
            for entry in old.iter().filter(|entry| !new.contains(entry)) {
                compare(path, Some(entry), None, changes);
            }
            for entry in new.iter().filter(|entry| !old.contains(entry)) {
                compare(path, None, Some(entry), changes);
            }
            return;
        }
        (None, _) => ChangeKind::Added,
        (_, None) => ChangeKind::Removed,
        _ => ChangeKind::Changed,
    };
    changes.push(TemplateChange {
        path: path.to_owned(),
        change: kind,
        old: old.cloned(),
        new: new.cloned(),
    });
}

/// Whether the order of a list is irrelevant. The order in a provider's settings may matter, so those are
/// compared directly.
fn is_set(path: &str) -> bool {
    let parts: Vec<&str> = path.split('.').collect();
    matches!(parts[..], ["customizations", ..] | ["steps", _, "needs" | "from"])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "
        template: business
        version: 1
        isolation: pool
        quotas: { seats: 5 }
        names: { database: 'tenant_{id}' }
        customizations:
          allowed: [settings, seats]
          rules: [{ rule: seats <= 10, message: at most 10 }, { rule: seats > 0, message: at least 1 }]
          approvals: { seats: [operator] }
        steps:
          identity:   { kind: identity }
          database:   { kind: database, migrations: app, timeout: 60s, retries: 1 }
          ping:       { kind: custom, provider: exec, with: { command: [ping, host] }, needs: [identity, database] }
          smoke_test: { needs: [identity, database] }
          activate:   { needs: [smoke_test] }";

    fn template(text: &str) -> Template {
        yaml_serde::from_str(text).unwrap()
    }

    /// One line for each difference that these replacements in the template make.
    fn changes(replacements: &[(&str, &str)]) -> Vec<String> {
        let new = replacements.iter().fold(OLD.to_owned(), |text, (old, new)| {
            assert!(text.contains(old), "{old}");
            text.replace(old, new)
        });
        let line = |change: TemplateChange| {
            let text = |value: Option<Value>| value.map(|value| value.to_string()).unwrap_or_default();
            format!("{:?} {} {}|{}", change.change, change.path, text(change.old), text(change.new))
        };
        diff(&template(OLD), &template(&new)).changes.into_iter().map(line).collect()
    }

    #[test]
    fn nothing_is_left_out() {
        let whole = json!(template(OLD));
        let known = PARTS.iter().chain(&["template", "version", "steps"]);
        let known: std::collections::BTreeSet<&str> = known.copied().collect();
        assert_eq!(
            whole.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().len(),
            known.len()
        );
        assert!(whole.as_object().unwrap().keys().all(|key| known.contains(key.as_str())));
    }

    #[test]
    fn what_means_the_same_is_no_change() {
        assert_eq!(changes(&[("version: 1", "version: 2"), ("60s", "1m")]), [""; 0]);
        assert_eq!(changes(&[("[settings, seats]", "[seats, settings]")]), [""; 0]);
        assert_eq!(changes(&[("needs: [identity, database]", "needs: [database, identity]")]), [""; 0]);
    }

    #[test]
    fn settings_change_from_one_to_another() {
        assert_eq!(
            changes(&[
                ("60s", "2m"),
                (", retries: 1", ", seed: defaults"),
                ("isolation: pool", "isolation: schema")
            ]),
            [
                r#"Changed isolation "pool"|"schema""#,
                r#"Added steps.database.seed |"defaults""#,
                r#"Changed steps.database.timeout "1m"|"2m""#,
                "Removed steps.database.retries 1|",
            ]
        );
        assert_eq!(
            changes(&[("[ping, host]", "[host, ping]")]),
            [r#"Changed steps.ping.with.command ["ping","host"]|["host","ping"]"#],
            "the order of a provider's settings may mean something"
        );
    }

    #[test]
    fn steps_come_and_go_as_a_whole() {
        let ping = "ping:       { kind: custom, provider: exec, with: { command: [ping, host] }, needs: [identity, database] }";
        assert_eq!(
            changes(&[(ping, "reserve: {}"), ("{ kind: identity }", "{ kind: identity, needs: [reserve] }")]),
            [
                r#"Added steps.identity.needs |["reserve"]"#,
                "Added steps.reserve |{}",
                r#"Removed steps.ping {"kind":"custom","needs":["identity","database"],"provider":"exec","with":{"command":["ping","host"]}}|"#,
            ]
        );
    }

    #[test]
    fn needs_quotas_names_and_rules_are_told_one_by_one() {
        assert_eq!(
            changes(&[
                ("smoke_test: { needs: [identity, database] }", "smoke_test: { needs: [ping, database] }"),
                ("seats: 5", "seats: 10, api_calls_per_month: 7"),
                ("'tenant_{id}'", "'t_{slug}'"),
                ("[settings, seats]", "[seats]"),
                ("at most 10 }", "ask sales }"),
                ("[operator]", "[admin]"),
            ]),
            [
                "Added quotas.api_calls_per_month |7",
                "Changed quotas.seats 5|10",
                r#"Changed names.database "tenant_{id}"|"t_{slug}""#,
                r#"Removed customizations.allowed "settings"|"#,
                r#"Removed customizations.approvals.seats "operator"|"#,
                r#"Added customizations.approvals.seats |"admin""#,
                r#"Removed customizations.rules {"message":"at most 10","rule":"seats <= 10"}|"#,
                r#"Added customizations.rules |{"message":"ask sales","rule":"seats <= 10"}"#,
                r#"Removed steps.smoke_test.needs "identity"|"#,
                r#"Added steps.smoke_test.needs |"ping""#,
            ]
        );
    }
}
