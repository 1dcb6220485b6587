//! Settings that new tenants take over from a main tenant: which ones, and what becomes of each on the way. What the
//! request says wins over them, and they win over the template's own.

use std::collections::BTreeMap;

use cel::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Template;
use super::expression::{cel, compile, names, plain};
use crate::error::FieldError;

/// From whom, and what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inherit {
    /// The main tenant's id or slug. As long as there is none, nothing is taken over: it may be the first one to be made.
    #[schemars(length(min = 1, max = 63))]
    pub tenant: String,
    /// By name of the setting, a CEL expression of what it becomes: `value` is the main tenant's, `settings` has all of its
    /// settings. A setting that the main tenant has not is not taken over.
    pub settings: BTreeMap<String, String>,
}

/// What an expression may speak of.
const VARIABLES: [&str; 2] = ["settings", "value"];

/// What is wrong with the block itself.
pub(super) fn faults(template: &Template) -> Vec<FieldError> {
    let expressions = template.inherit.iter().flat_map(|inherit| &inherit.settings);
    let faults = expressions.filter_map(|(name, expression)| {
        let unknown = |program| names(program).into_iter().find(|name| !VARIABLES.contains(&name.as_str()));
        let why = match compile(expression) {
            Err(why) => why,
            Ok(program) => {
                let name = unknown(&program)?;
                format!("there is no `{name}`; there are {}", VARIABLES.join(", "))
            }
        };
        Some(FieldError::new(format!("inherit.settings.{name}"), why))
    });
    faults.collect()
}

impl Inherit {
    /// What is taken over of the main tenant's settings. Fails with every expression that has no answer for them.
    pub fn apply(&self, main: &Map<String, Value>) -> Result<Map<String, Value>, Vec<FieldError>> {
        let (mut taken, mut faults) = (Map::new(), Vec::new());
        for (name, expression) in &self.settings {
            let Some(value) = main.get(name) else { continue };
            let mut context = Context::default();
            context.add_variable_from_value("value", cel(value));
            context.add_variable_from_value("settings", cel(&Value::Object(main.clone())));
            let answer = compile(expression).ok().and_then(|program| program.execute(&context).ok());
            match answer.as_ref().and_then(plain) {
                Some(value) => {
                    taken.insert(name.clone(), value);
                }
                None => faults.push(FieldError::new(
                    format!("inherit.settings.{name}"),
                    format!("`{expression}` cannot be evaluated for the main tenant's value"),
                )),
            }
        }
        if faults.is_empty() { Ok(taken) } else { Err(faults) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inherit(settings: Value) -> Inherit {
        serde_json::from_value(json!({ "tenant": "main", "settings": settings })).unwrap()
    }

    #[test]
    fn what_is_taken_over_and_what_becomes_of_it() {
        let main = json!({ "digest": "daily", "limit": 10, "theme": { "dark": true }, "secret": 1 });
        let rules = json!({
            "digest": "value == 'daily' ? 'weekly' : value", "limit": "value * 2", "theme": "value", "none": "value",
        });
        let taken = inherit(rules).apply(main.as_object().unwrap()).unwrap();
        assert_eq!(json!(taken), json!({ "digest": "weekly", "limit": 20, "theme": { "dark": true } }));
    }

    #[test]
    fn an_expression_without_an_answer_is_named() {
        let main = json!({ "limit": "ten" });
        let faults = inherit(json!({ "limit": "value * 2" })).apply(main.as_object().unwrap()).unwrap_err();
        assert_eq!(faults[0].path, "inherit.settings.limit");
    }
}
