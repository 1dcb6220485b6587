//! Quotas: hard limits of a plan, as numbers with units.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Quotas by name: `api_calls_per_month`, `storage_bytes`, `seats`, and names that a plan adds.
pub type Quotas = BTreeMap<String, Quota>;

/// One hard limit. In files a number, or a text with a binary or decimal unit such as `1TiB` or `500MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quota(pub u64);

const UNITS: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl Quota {
    /// Parses `250`, `10GiB`, `1 TB`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (number, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
            .unwrap_or((text, 1));
        let number: u64 = number.trim().parse().map_err(|_| {
            format!(
                "`{text}` is not a quota: write a whole number, or one with a unit such as 10GiB or 500MB"
            )
        })?;
        number.checked_mul(factor).map(Self).ok_or_else(|| format!("`{text}` is more than 2^64"))
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Quota {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Quota {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)
            .map_err(|_| de::Error::custom("a quota is a whole number or a text such as 10GiB"))?
        {
            Form::Number(n) => Ok(Self(n)),
            Form::Text(text) => Self::parse(&text).map_err(de::Error::custom),
        }
    }
}

impl schemars::JsonSchema for Quota {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quota".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "a whole number, or one with a unit",
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": r"^[0-9]+ ?(KiB|MiB|GiB|TiB|kB|MB|GB|TB)?$" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(Quota::parse("250"), Ok(Quota(250)));
        assert_eq!(Quota::parse("1TiB"), Ok(Quota(1 << 40)));
        assert_eq!(Quota::parse("5 GB"), Ok(Quota(5_000_000_000)));
        for bad in ["", "-1", "1.5GiB", "GiB", "99999999TiB", "12parsecs"] {
            assert!(Quota::parse(bad).is_err(), "{bad}");
        }
    }
}
