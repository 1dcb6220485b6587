//! Settings that new tenants inherit from a main tenant, each transformed by an expression. Settings of the request
//! override inherited ones, and inherited ones override those of the template.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Template;
use super::expression::{Expression, Variables};
use crate::error::FieldError;

/// The block `inherit` of a template: the main tenant and the inherited settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inherit {
    /// Id or slug of the main tenant. Until it exists, nothing is inherited, so that it can be created from this template.
    #[schemars(length(min = 1, max = 63))]
    pub tenant: String,
    /// CEL expression for each inherited setting, by the setting's name. In it, `value` is the main tenant's value and
    /// `settings` all of its settings. A setting that the main tenant does not have is not inherited.
    pub settings: BTreeMap<String, String>,
}

/// Variables of an expression.
const VARIABLES: [&str; 2] = ["settings", "value"];

/// Returns the faults of the block: expressions that do not compile or use unknown variables.
pub(super) fn faults(template: &Template) -> Vec<FieldError> {
    let expressions = template.inherit.iter().flat_map(|inherit| &inherit.settings);
    let faults = expressions.filter_map(|(name, expression)| {
        let why = match Expression::compile(expression) {
            Err(why) => why,
            Ok(expression) => {
                let name = expression.variables().find(|name| !VARIABLES.contains(name))?;
                format!(
                    "the variable `{name}` is not known; an expression may use {}",
                    VARIABLES.join(" and ")
                )
            }
        };
        Some(FieldError::new(format!("inherit.settings.{name}"), why))
    });
    faults.collect()
}

impl Inherit {
    /// Computes the inherited settings from those of the main tenant. Returns a fault for each expression that cannot be
    /// evaluated.
    pub fn apply(&self, main: &Map<String, Value>) -> Result<Map<String, Value>, Vec<FieldError>> {
        let (mut taken, mut faults) = (Map::new(), Vec::new());
        let mut variables = Variables::default();
        variables.set("settings", &Value::Object(main.clone()));
        for (name, expression) in &self.settings {
            let Some(value) = main.get(name) else { continue };
            variables.set("value", value);
            match Expression::compile(expression).and_then(|compiled| compiled.evaluate(&variables)) {
                Ok(value) => {
                    taken.insert(name.clone(), value);
                }
                // The reason may quote a value.
                Err(_) => faults.push(FieldError::new(
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
