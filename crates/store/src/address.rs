//! Address of a database, parsed from its URL: a SQLite file or a PostgreSQL database.

use std::path::PathBuf;
use std::str::FromStr;

use tenantry_postgres::Server;

use super::dialect::Dialect;

/// Address of a database.
#[derive(Clone, Debug)]
pub enum Address {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<Server>),
}

impl FromStr for Address {
    type Err = String;
    fn from_str(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("a sqlite URL needs a path, such as sqlite:///var/lib/tenantry/registry.db".to_owned())
            } else {
                Ok(Self::Sqlite(path.into()))
            };
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(Box::new(url.parse()?)));
        }
        Err("a database URL begins with sqlite: or postgres:".to_owned())
    }
}

impl Address {
    /// Path of the file, or `host:port/database`; never the password.
    pub fn place(&self) -> String {
        match self {
            Self::Sqlite(path) => path.display().to_string(),
            Self::Postgres(server) => {
                format!("{}:{}/{}", server.host(), server.port(), server.database())
            }
        }
    }

    /// SQL dialect of the database.
    pub const fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_names_no_password() {
        let address: Address = "postgres://u:secret@db.example:5433/name".parse().unwrap();
        assert_eq!(address.place(), "db.example:5433/name");
        let file: Address = "sqlite:///var/lib/registry.db".parse().unwrap();
        assert_eq!(file.place(), "/var/lib/registry.db");
    }
}
