//! Kubernetes quantities: `4`, `500m`, `0.5`, `8Gi`, `100G`. Exponents and units below a thousandth are not
//! supported.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// Suffixes of byte quantities and their factors.
const BYTES: [(&str, u64); 12] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

/// A quantity as written in the settings. Whole numbers need no quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity(pub String);

impl Quantity {
    /// The quantity in thousandths of a processor.
    pub fn cpu(&self) -> Result<u64, String> {
        let (number, unit) = self.0.strip_suffix('m').map_or((&*self.0, 1000), |number| (number, 1));
        let what = "must be processors such as 4, 0.5 or 500m, and at least 1m";
        scaled(number, unit).ok_or_else(|| what.to_owned())
    }

    /// The quantity in bytes.
    pub fn bytes(&self) -> Result<u64, String> {
        let found = BYTES.iter().find_map(|(suffix, unit)| Some((self.0.strip_suffix(suffix)?, *unit)));
        let (number, unit) = found.unwrap_or((&self.0, 1));
        let what = "must be bytes such as 512Mi, 8Gi or 100G, at least one and less than 16Ei";
        scaled(number, unit).ok_or_else(|| what.to_owned())
    }
}

/// A decimal number times a unit; none unless the result is a whole number above zero.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || whole.is_empty() || part.len() > 9 || number.ends_with('.') {
        return None;
    }
    let (whole, unit) = (whole.parse::<u64>().ok()?, u128::from(unit));
    let parts = part.parse::<u128>().unwrap_or(0) * unit;
    let decimals = 10u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    if parts % decimals != 0 {
        return None;
    }
    let all = u128::from(whole) * unit + parts / decimals;
    u64::try_from(all).ok().filter(|all| *all > 0)
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount such as 4, \"500m\" or \"8Gi\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity(text.to_owned()))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Quantity, E> {
                u64::try_from(number)
                    .map(|number| Quantity(number.to_string()))
                    .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 1 },
                { "type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,9})?(m|k|[KMGTPE]i?)?$" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    #[test]
    fn parses_processors() {
        for (text, millis) in
            [("4", 4000), ("500m", 500), ("0.5", 500), ("1.25", 1250), ("0.001", 1), ("1m", 1)]
        {
            assert_eq!(quantity(text).cpu(), Ok(millis), "{text}");
        }
        for bad in
            ["", "0", "0m", "-1", "+1", "0.5m", "0.0001", "1e3", "4Gi", "m", ".5", "1.", "1..2", "٣", "4 "]
        {
            assert!(quantity(bad).cpu().is_err(), "{bad}");
        }
    }

    #[test]
    fn parses_bytes() {
        for (text, bytes) in
            [("1", 1), ("8Gi", 8 << 30), ("1.5Ki", 1536), ("100G", 100_000_000_000), ("2k", 2000)]
        {
            assert_eq!(quantity(text).bytes(), Ok(bytes), "{text}");
        }
        for bad in
            ["", "0", "Gi", "8GB", "8gi", "-8Gi", "500m", "0.5", "99Ei", "99999999999999999999", "1 Gi", "8K"]
        {
            assert!(quantity(bad).bytes().is_err(), "{bad}");
        }
    }
}
