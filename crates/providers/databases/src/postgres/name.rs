//! Names of schemas, databases and roles: checked once, always quoted in SQL. PostgreSQL truncates names that
//! are too long, so that two could become one; such names are rejected.

use std::fmt;

use tenantry_model::Failure;

use crate::tables::quoted;

/// Longest name in bytes: `NAMEDATALEN` less one.
const MAX_NAME: usize = 63;

/// The name of a schema, database or role. Displays as a quoted identifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    /// Returns an error if the server would truncate the name or reserves it.
    pub fn new(text: &str) -> Result<Self, Failure> {
        let fault = match text {
            "" => "is empty",
            _ if text.len() > MAX_NAME => "is longer than 63 bytes",
            _ if text.contains('\0') => "holds a zero byte",
            _ if text.starts_with("pg_") || ["public", "none"].contains(&text) => "is reserved by PostgreSQL",
            _ => return Ok(Self(text.to_owned())),
        };
        let text = "the name of a tenant's database, schema or role";
        Err(Failure::invalid("bad_name", format!("{text} {fault}: change `names` in the template")))
    }

    /// A name that the server's catalogue has, by whatever rule it was given.
    pub fn existing(text: String) -> Self {
        Self(text)
    }

    /// The bare name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_in_names_are_escaped() {
        assert_eq!(Name::new("a\"; drop").unwrap().to_string(), "\"a\"\"; drop\"");
        assert_eq!(Name::new("select").unwrap().to_string(), "\"select\"");
        let long = "ü".repeat(31);
        assert_eq!(Name::new(&long).unwrap().as_str(), long);
    }

    #[test]
    fn truncated_and_reserved_names_are_rejected() {
        for bad in ["", &"ü".repeat(32), &"a".repeat(64), "a\0b", "pg_tenant", "public", "none"] {
            assert_eq!(Name::new(bad).unwrap_err().code, "bad_name", "{bad:?}");
        }
    }
}
