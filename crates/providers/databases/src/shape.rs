//! What a schema is made of, part by part: recorded when it is made or migrated, and compared with what is there later.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Most differences that are named; all are counted.
const NAMED: usize = 20;

/// Definitions by what they belong to (``table `tasks` ``), and there by part (``column `title` ``); that of the thing itself
/// has an empty name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(BTreeMap<String, BTreeMap<String, String>>);

impl Shape {
    /// Nothing.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// SHA-256 over all of it.
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

    /// How what is there now differs from this, a sentence each, the first 20. Names of parts, never values.
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
                    Some(other) if other != definition => say(owner, part, "is not as it was made"),
                    Some(_) => {}
                }
            }
            for part in there.keys().filter(|part| !parts.contains_key(*part)) {
                say(owner, part, "was added by somebody else");
            }
        }
        for owner in now.0.keys().filter(|owner| !self.0.contains_key(*owner)) {
            say(owner, "", "was added by somebody else");
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
            "table `b`, column `x` is not as it was made",
            "table `b`, index `i` is missing",
            "table `b`, column `y` was added by somebody else",
            "view `c` was added by somebody else",
        ];
        assert_eq!(made.differences(&now), expected);
        assert_eq!(made.differences(&made), [""; 0]);
        assert_ne!(made.fingerprint(), now.fingerprint());
        let many = Shape::from_iter((0..25).map(|n| (format!("table `{n}`"), String::new(), String::new())));
        let said = Shape::new().differences(&many);
        assert_eq!((said.len(), said[20].as_str()), (21, "and 5 more"));
    }
}
