//! Names on the server. The one way from a text to an identifier in SQL: checked once, quoted always. PostgreSQL cuts
//! names that are too long, so that two could become one; such names are refused instead.

use std::fmt;

use tenantry_model::Failure;

use crate::tables::quoted;

/// Longest name in bytes: `NAMEDATALEN` less one.
const MAX_NAME: usize = 63;

/// The name of a schema, database or role. Displayed as it stands in SQL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    /// Refuses what the server would cut, or keeps for itself.
    pub fn new(text: &str) -> Result<Self, Failure> {
        let fault = match text {
            "" => "is empty",
            _ if text.len() > MAX_NAME => "is longer than 63 bytes",
            _ if text.contains('\0') => "holds a zero byte",
            _ if text.starts_with("pg_") || ["public", "none"].contains(&text) => "is PostgreSQL's own",
            _ => return Ok(Self(text.to_owned())),
        };
        let text = "the name of a tenant's database, schema or role";
        Err(Failure::invalid("bad_name", format!("{text} {fault}: change `names` in the template")))
    }

    /// The name as it is.
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
    fn nothing_gets_out_of_its_quotes() {
        assert_eq!(Name::new("a\"; drop").unwrap().to_string(), "\"a\"\"; drop\"");
        assert_eq!(Name::new("select").unwrap().to_string(), "\"select\"");
        let long = "ü".repeat(31);
        assert_eq!(Name::new(&long).unwrap().as_str(), long);
    }

    #[test]
    fn what_the_server_would_change_or_keep() {
        for bad in ["", &"ü".repeat(32), &"a".repeat(64), "a\0b", "pg_tenant", "public", "none"] {
            assert_eq!(Name::new(bad).unwrap_err().code, "bad_name", "{bad:?}");
        }
    }
}
