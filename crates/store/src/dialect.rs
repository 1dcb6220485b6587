//! The two databases' SQL: where they differ, one text is written here for both.
//!
//! Queries have `?` for every value, and `IN ?` for a list of texts. Migrations name PostgreSQL's types.

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite: a file, one process.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

/// PostgreSQL's column types and their names in SQLite, which stores timestamps and JSON as text.
const SQLITE_TYPES: [(&str, &str); 3] =
    [("jsonb", "jsonb_text"), ("timestamptz", "timestamp_with_timezone_text"), ("bigint", "integer")];

impl Dialect {
    /// Converts a query to this database's syntax. Every `?` in the text is a parameter, even between quotes.
    pub fn query(self, text: &str) -> String {
        let mut query = String::with_capacity(text.len() + 16);
        let mut pieces = text.split('?');
        query.push_str(pieces.next().unwrap_or_default());
        for (n, piece) in (1..).zip(pieces) {
            let list = query.strip_suffix(" IN ").map(str::len);
            match (self, list) {
                (Self::Sqlite, None) => query.push('?'),
                (Self::Sqlite, Some(_)) => query.push_str("(SELECT value FROM json_each(?))"),
                (Self::Postgres, None) => query.push_str(&format!("${n}")),
                (Self::Postgres, Some(before)) => {
                    query.truncate(before);
                    query.push_str(&format!(" = ANY(${n})"));
                }
            }
            query.push_str(piece);
        }
        query
    }

    /// A migration as this database takes it.
    pub fn migration(self, text: &str) -> String {
        match self {
            Self::Postgres => text.to_owned(),
            Self::Sqlite => {
                SQLITE_TYPES.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_both() {
        let text = "SELECT a FROM t WHERE b = ? AND c IN ? LIMIT ?";
        let sqlite = "SELECT a FROM t WHERE b = ? AND c IN (SELECT value FROM json_each(?)) LIMIT ?";
        assert_eq!(Dialect::Sqlite.query(text), sqlite);
        assert_eq!(Dialect::Postgres.query(text), "SELECT a FROM t WHERE b = $1 AND c = ANY($2) LIMIT $3");
        let table = "CREATE TABLE t (a jsonb NOT NULL, b timestamptz)";
        let sqlite = "CREATE TABLE t (a jsonb_text NOT NULL, b timestamp_with_timezone_text)";
        assert_eq!(Dialect::Sqlite.migration(table), sqlite);
        assert_eq!(Dialect::Postgres.migration(table), table);
    }
}
