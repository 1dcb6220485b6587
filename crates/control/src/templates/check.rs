//! Checks of a template that its schema cannot express: providers exist, and the steps fit together.

use std::collections::BTreeSet;
use std::sync::Arc;

use tenantry_engine::Mode;
use tenantry_model::Isolation;
use tenantry_provider::masks::MaskRule;
use tenantry_provider::{Provider, Registry};

use super::built_in::{ACTIVATE, ALLOWED, REQUIRED, RESERVED, SMOKE_TEST};
use super::{Span, StepSpec, Template, customize, inherit, names};
use crate::error::FieldError;

const PLACEHOLDERS: [&str; 4] = ["id", "slug", "region", "step"];

/// Returns the provider of a step; none if the step creates no resource or no provider fits.
pub fn provider<'a>(
    step: &StepSpec,
    isolation: Isolation,
    providers: &'a Registry,
) -> Option<&'a Arc<dyn Provider>> {
    let kind = step.kind?;
    match &step.provider {
        Some(name) => providers.get(name).filter(|p| p.kind() == kind && p.isolates(isolation)),
        None => providers.default_for(kind, isolation),
    }
}

/// Returns all faults of the template.
pub fn faults(template: &Template, providers: &Registry) -> Vec<FieldError> {
    let mut faults = Vec::new();
    let mut fault = |path: String, message: String| faults.push(FieldError::new(path, message));
    for (key, step) in &template.steps {
        let at = |field: &str| format!("steps.{key}.{field}");
        if !is_key(key) {
            fault(
                format!("steps.{key}"),
                "must be named with a-z, 0-9 and _, beginning with a letter".to_owned(),
            );
        }
        for need in &step.needs {
            if need == key {
                fault(at("needs"), format!("`{key}` cannot need itself"));
            } else if !template.steps.contains_key(need) {
                fault(at("needs"), format!("there is no step `{need}`"));
            }
        }
        match (step.kind, &step.wait) {
            (Some(_), Some(_)) => {
                fault(at("wait"), "a step either makes a resource or waits; split it in two".to_owned())
            }
            (Some(kind), None) if provider(step, template.isolation, providers).is_none() => {
                let isolation = template.isolation;
                let fitting = providers.iter().filter(|p| p.kind() == kind && p.isolates(isolation));
                let known: Vec<_> = fitting.map(|p| p.name()).collect();
                let (kind, isolation, known) = (kind.as_str(), isolation.as_str(), known.join(", "));
                fault(
                    at("provider"),
                    format!("no such provider of {kind} with isolation {isolation}; known: {known}"),
                );
            }
            (None, None) if !ALLOWED.contains(&key.as_str()) => {
                let names = ALLOWED.join(", ");
                fault(
                    format!("steps.{key}"),
                    format!("needs a `kind` or a `wait`, or one of the names {names}"),
                );
            }
            (None, Some(wait)) if wait != "approval" => {
                if let Err(why) = Span::parse(wait) {
                    fault(at("wait"), format!("must be `approval` or a length of time; {why}"));
                }
            }
            _ => {}
        }
        if !step.from.is_empty() {
            if step.wait.as_deref() != Some("approval") {
                fault(at("from"), "is allowed only in a step with `wait: approval`".to_owned());
            } else if let Some(why) = customize::approvers_fault(&step.from) {
                fault(at("from"), why);
            }
        }
        if step.mode == Some(Mode::Detached) && step.kind.is_none() {
            fault(at("mode"), "only a step that makes a resource can be detached".to_owned());
        }
    }
    faults.extend(mask_faults(&[], &template.masks));
    for name in RESERVED.into_iter().filter(|name| template.steps.contains_key(*name)) {
        let message = format!("`{name}` is a reserved step name; rename this step");
        faults.push(FieldError::new(format!("steps.{name}"), message));
    }
    faults.extend(customize::faults(template));
    faults.extend(inherit::faults(template));
    let mut fault = |path: String, message: String| faults.push(FieldError::new(path, message));
    for key in in_cycles(template) {
        fault(format!("steps.{key}.needs"), "the steps form a cycle; remove one of these `needs`".to_owned());
    }
    for name in REQUIRED {
        if !template.steps.contains_key(name) {
            fault(
                "steps".to_owned(),
                format!("has no step `{name}`, without which no tenant becomes active; add it"),
            );
        }
    }
    if !ancestors(template, ACTIVATE).contains(SMOKE_TEST) && template.steps.contains_key(SMOKE_TEST) {
        fault(
            "steps.activate.needs".to_owned(),
            "must include `smoke_test`, directly or through other steps".to_owned(),
        );
    }
    let before = ancestors(template, ACTIVATE);
    for (key, step) in &template.steps {
        let detached = step.mode == Some(Mode::Detached);
        if !detached
            && key != ACTIVATE
            && template.steps.contains_key(ACTIVATE)
            && !before.contains(key.as_str())
        {
            let message = "must be needed by `activate`, directly or through other steps, or be detached: no step may \
                           fail after the activation";
            fault(format!("steps.{key}"), message.to_owned());
        }
        if !detached && before.contains(key.as_str()) {
            for need in step.needs.iter().filter(|n| is_detached(template, n)) {
                fault(
                    format!("steps.{key}.needs"),
                    format!("`{need}` is detached, so no step before `activate` can need it"),
                );
            }
        }
    }
    let mut named = BTreeSet::new();
    for (key, step) in &template.steps {
        let Some(provider) = provider(step, template.isolation, providers) else { continue };
        let kind = provider.kind();
        let pattern = template.names.get(&kind).map_or(names::DEFAULT, String::as_str);
        let refused = |name: &String| Some((provider.check_name(name).err()?, name.clone()));
        if let Some((why, name)) = names::samples(pattern, key).iter().find_map(refused)
            && named.insert(kind)
        {
            let message = format!(
                "gives names such as `{name}`, which the provider {} refuses: {why}",
                provider.name()
            );
            fault(format!("names.{}", kind.as_str()), message);
        }
    }
    for (kind, pattern) in &template.names {
        for name in placeholders(pattern) {
            if !PLACEHOLDERS.contains(&name) {
                let known = PLACEHOLDERS.map(|p| format!("{{{p}}}")).join(", ");
                fault(format!("names.{}", kind.as_str()), format!("`{{{name}}}` is not known; use {known}"));
            }
        }
        if !pattern.contains("{id}") && !pattern.contains("{slug}") {
            let message = "must contain {id} or {slug}, so that every tenant gets its own name".to_owned();
            fault(format!("names.{}", kind.as_str()), message);
        }
    }
    faults
}

fn is_detached(template: &Template, key: &str) -> bool {
    template.steps.get(key).is_some_and(|step| step.mode == Some(Mode::Detached))
}

fn is_key(key: &str) -> bool {
    key.len() <= 63
        && key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// The texts between braces.
fn placeholders(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('{').skip(1).map(|rest| rest.split('}').next().unwrap_or(rest))
}

/// Faults of masks that apply in addition to `always`.
pub(crate) fn mask_faults(always: &[MaskRule], rules: &[MaskRule]) -> Vec<FieldError> {
    let mut faults = Vec::new();
    for (place, rule) in rules.iter().enumerate() {
        let mut fault = |field: &str, why: &str| {
            faults.push(FieldError::new(format!("masks[{place}].{field}"), why));
        };
        if let Some((field, why)) = rule.fault() {
            fault(field, why);
        }
        let same = |other: &MaskRule| (&other.table, &other.column) == (&rule.table, &rule.column);
        if always.iter().any(same) {
            fault("column", "is masked by the template; a request cannot change that");
        } else if rules.iter().take(place).any(same) {
            fault("column", "has two masks; give one for each column");
        }
    }
    faults
}

/// All that a step needs, directly or not.
fn ancestors<'a>(template: &'a Template, key: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![key];
    while let Some(key) = open.pop() {
        for need in template.steps.get(key).into_iter().flat_map(|s| &s.needs) {
            if found.insert(need.as_str()) {
                open.push(need);
            }
        }
    }
    found
}

fn in_cycles(template: &Template) -> Vec<&str> {
    template.steps.keys().map(String::as_str).filter(|key| ancestors(template, key).contains(key)).collect()
}
