//! The definition of a schema, part by part: recorded when a provider creates or migrates the schema, and
//! compared with the database later to find drift.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Most differences that are listed; the rest are counted.
const NAMED: usize = 20;
/// The newest form: what is compared, and how it is written. A recorded definition stays in its form.
pub const FORM: u32 = 2;
/// Place of the form among the parts: no object has an empty name.
const NO_OBJECT: &str = "";

/// Definitions by object (``table `tasks` ``) and part (``column `title` ``). The object's own definition has
/// an empty part name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(BTreeMap<String, BTreeMap<String, String>>);

impl Shape {
    /// An empty definition.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The form that it was recorded in. The first one has no mark.
    pub fn form(&self) -> u32 {
        let mark = self.0.get(NO_OBJECT).and_then(|parts| parts.get("form"));
        mark.and_then(|form| form.parse().ok()).unwrap_or(1)
    }

    /// The same, marked as written in this form.
    pub fn in_form(mut self, form: u32) -> Self {
        if form > 1 {
            let mark = BTreeMap::from([("form".to_owned(), form.to_string())]);
            self.0.insert(NO_OBJECT.to_owned(), mark);
        }
        self
    }

    /// SHA-256 over all definitions, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (owner, parts) in &self.0 {
            for (part, definition) in parts {
                for text in [owner, part, definition] {
                    hash.update((text.len() as u64).to_be_bytes());
                    hash.update(text);
                }
            }
        }
        hex::encode(hash.finalize())
    }

    /// Compares with what the database holds `now`: one sentence per difference, at most 20 and a count of
    /// the rest. Sentences name parts, never values.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut say = |owner: &str, part: &str, what: &str| {
            let comma = if part.is_empty() { "" } else { ", " };
            differences.push(format!("{owner}{comma}{part} {what}"));
        };
        for (owner, parts) in &self.0 {
            let Some(there) = now.0.get(owner) else {
                say(owner, "", "is missing");
                continue;
            };
            for (part, definition) in parts {
                match there.get(part) {
                    None => say(owner, part, "is missing"),
                    Some(other) if other != definition => say(owner, part, "differs from its migrations"),
                    Some(_) => {}
                }
            }
            for part in there.keys().filter(|part| !parts.contains_key(*part)) {
                say(owner, part, "was added outside the migrations");
            }
        }
        for owner in now.0.keys().filter(|owner| !self.0.contains_key(*owner)) {
            say(owner, "", "was added outside the migrations");
        }
        let more = differences.len().saturating_sub(NAMED);
        differences.truncate(NAMED);
        if more > 0 {
            differences.push(format!("and {more} more"));
        }
        differences
    }
}

impl<A: Into<String>> FromIterator<(A, A, A)> for Shape {
    fn from_iter<I: IntoIterator<Item = (A, A, A)>>(parts: I) -> Self {
        let mut shape = Self::new();
        for (owner, part, definition) in parts {
            shape.0.entry(owner.into()).or_default().insert(part.into(), definition.into());
        }
        shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_recorded_with_the_definitions() {
        let first = Shape::from_iter([("table `a`", "", "r")]);
        let second = first.clone().in_form(2);
        assert_eq!((first.form(), second.form(), first.clone().in_form(1)), (1, 2, first.clone()));
        let stored = serde_json::to_string(&second).unwrap();
        assert_eq!(serde_json::from_str::<Shape>(&stored).unwrap(), second);
        assert_ne!(first.fingerprint(), second.fingerprint());
        assert_eq!(second.differences(&second), [""; 0]);
    }

    #[test]
    fn differences_are_named_once() {
        let made = Shape::from_iter([
            ("table `a`", "", "r"),
            ("table `a`", "column `x`", "text"),
            ("table `b`", "", "r"),
            ("table `b`", "column `x`", "text"),
            ("table `b`", "index `i`", "(x)"),
        ]);
        let now = Shape::from_iter([
            ("table `b`", "", "r"),
            ("table `b`", "column `x`", "int"),
            ("table `b`", "column `y`", "int"),
            ("view `c`", "", "v"),
        ]);
        let expected = [
            "table `a` is missing",
            "table `b`, column `x` differs from its migrations",
            "table `b`, index `i` is missing",
            "table `b`, column `y` was added outside the migrations",
            "view `c` was added outside the migrations",
        ];
        assert_eq!(made.differences(&now), expected);
        assert_eq!(made.differences(&made), [""; 0]);
        assert_ne!(made.fingerprint(), now.fingerprint());
        let many = Shape::from_iter((0..25).map(|n| (format!("table `{n}`"), String::new(), String::new())));
        let said = Shape::new().differences(&many);
        assert_eq!((said.len(), said[20].as_str()), (21, "and 5 more"));
    }
}
