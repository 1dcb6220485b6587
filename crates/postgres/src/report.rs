//! What PostgreSQL says about an error, for operators: SQLSTATE, message, detail, hint, the function's line and the
//! statement. Texts name objects and never a row's values or a literal; parts that cannot be told apart are left out.

use std::fmt;

use tokio_postgres::error::{DbError, ErrorPosition};

use crate::{redact, sqlstate};

/// Maximum length in characters of each text.
const MAX_TEXT: usize = 500;

/// SQLSTATE classes whose message is a foreign program's.
const FOREIGN: [&str; 3] = ["38", "39", "HV"];

/// SQLSTATE classes whose message may quote values: failed conversions, and RAISE of a tenant's function.
const QUOTES_VALUES: [&str; 2] = ["22", "P0"];

/// SQLSTATE classes whose detail and hint name objects, sessions or files only. Those of other classes may contain rows, or
/// what the author of a function put in.
const DETAIL_NAMES_OBJECTS: [&str; 15] =
    ["0A", "0L", "25", "26", "28", "2B", "3D", "3F", "40", "42", "53", "55", "57", "58", "XX"];

/// SQLSTATE classes of violated constraints, whose detail contains a key's values.
const VIOLATIONS: [&str; 2] = ["23", "42"];

/// An error of the server. Displays as `SQLSTATE code: message; detail: …; hint: …; in: …; statement: …`.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
    pub(crate) detail: Option<&'a str>,
    pub(crate) hint: Option<&'a str>,
    /// Calls of functions that led to the error, innermost first.
    pub(crate) context: Option<&'a str>,
    /// The text that was sent, and the offset in characters at which the server found the error.
    pub(crate) statement: Option<&'a str>,
    pub(crate) position: Option<usize>,
}

impl<'a> Report<'a> {
    /// Of an error, and the text that was sent.
    pub(crate) fn new(error: &'a DbError, statement: Option<&'a str>) -> Self {
        let position = match error.position() {
            Some(ErrorPosition::Original(position)) => usize::try_from(*position).ok(),
            _ => None,
        };
        Self {
            code: error.code().code(),
            message: error.message(),
            detail: error.detail(),
            hint: error.hint(),
            context: error.where_(),
            statement,
            position: position.and_then(|position| position.checked_sub(1)),
        }
    }

    /// Number of line ends in the text before the place at which the server found the error; none if it names no place.
    pub fn line(&self) -> Option<usize> {
        let before = self.statement?.chars().take(self.position?);
        Some(before.filter(|character| *character == '\n').count())
    }

    /// The first two characters of the SQLSTATE.
    fn class(&self) -> &str {
        self.code.get(..2).unwrap_or_default()
    }

    /// Whether the author of a function wrote the message. A RAISE may use any SQLSTATE.
    fn is_raised(&self) -> bool {
        sqlstate::listed(self.code).is_none()
            || self.function().is_some_and(|line| line.ends_with(" at RAISE"))
    }

    fn safe_message(&self) -> Option<String> {
        match self.class() {
            class if FOREIGN.contains(&class) => None,
            class if self.is_raised() || QUOTES_VALUES.contains(&class) => Some(redact::values(self.message)),
            _ if self.code == "42601" => Some(redact::token(self.message)),
            _ => Some(self.message.to_owned()),
        }
    }

    fn safe_detail(&self) -> Option<String> {
        let detail = self.detail.filter(|_| !self.is_raised())?;
        if VIOLATIONS.contains(&self.class())
            && let Some(detail) = redact::key_detail(detail)
        {
            return Some(detail);
        }
        let names_objects =
            DETAIL_NAMES_OBJECTS.contains(&self.class()) && !detail.starts_with("Failing row contains");
        names_objects.then(|| detail.to_owned())
    }

    fn safe_hint(&self) -> Option<&str> {
        self.hint.filter(|_| !self.is_raised() && DETAIL_NAMES_OBJECTS.contains(&self.class()))
    }

    /// The innermost line of a function; its signature has no values.
    fn function(&self) -> Option<&str> {
        self.context?.lines().next().filter(|line| line.starts_with("PL/pgSQL function "))
    }

    /// The statement that failed. Of several that were sent together, the server tells which one only if it cannot be parsed.
    fn safe_statement(&self) -> Option<String> {
        let sql = self.statement?;
        let all = redact::statements(sql);
        let at = self.position.and_then(|position| sql.char_indices().nth(position)).map(|(at, _)| at);
        let (number, found) = match (all.as_slice(), at) {
            ([], _) => return None,
            ([one], _) => (1, one),
            (several, Some(at)) => (1, several.iter().find(|range| range.end > at)?),
            ([first, ..], None) => (all.len(), first),
        };
        let text = redact::statement(sql.get(found.clone())?);
        Some(if number == 1 { text } else { format!("one of {number} that begin with {text}") })
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQLSTATE {}", self.code)?;
        if let Some(message) = self.safe_message() {
            write!(f, ": {}", one_line(&message))?;
        }
        let parts = [
            ("detail", self.safe_detail()),
            ("hint", self.safe_hint().map(str::to_owned)),
            ("in", self.function().map(str::to_owned)),
            ("statement", self.safe_statement()),
        ];
        for (name, text) in parts {
            if let Some(text) = text {
                write!(f, "; {name}: {}", one_line(&text))?;
            }
        }
        Ok(())
    }
}

/// The text without line breaks and control characters, cut to its maximum length.
fn one_line(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &'static str, message: &'static str) -> Report<'static> {
        Report { code, message, detail: None, hint: None, context: None, statement: None, position: None }
    }

    #[test]
    fn all_parts_are_shown() {
        let report = Report {
            detail: Some("view b depends on table a.\nview c depends on table a."),
            hint: Some("Use DROP ... CASCADE to drop the dependent objects too."),
            context: Some("PL/pgSQL function f(text) line 3 at SQL statement\nSQL statement \"secret\""),
            statement: Some("DROP TABLE a"),
            ..error("2BP01", "cannot drop table a because other objects depend on it")
        };
        let expected = "SQLSTATE 2BP01: cannot drop table a because other objects depend on it; detail: view b depends \
                        on table a. view c depends on table a; hint: Use DROP ... CASCADE to drop the dependent objects \
                        too; in: PL/pgSQL function f(text) line 3 at SQL statement; statement: DROP TABLE a";
        assert_eq!(report.to_string(), expected);
        let long: &'static str = "x".repeat(5_000).leak();
        assert!(error("42704", long).to_string().len() < 600);
    }

    #[test]
    fn the_statement_at_fault_is_shown() {
        let sql = "SELECT 'ä';\nSELECT 1;\nSELECT 'secret', nothing";
        let several = Report { statement: Some(sql), ..error("42703", "x") };
        let found = Report { position: Some(39), ..several };
        assert_eq!((found.line(), several.line()), (Some(2), None));
        assert_eq!(found.to_string(), "SQLSTATE 42703: x; statement: SELECT …, nothing");
        assert_eq!(several.to_string(), "SQLSTATE 42703: x; statement: one of 3 that begin with SELECT …");
    }

    #[test]
    fn values_of_rows_are_left_out() {
        for (code, message, detail) in [
            ("22P02", "invalid input syntax for type integer: \"secret\"", "secret"),
            ("HV000", "the remote server returned secret", "secret"),
            (
                "23505",
                "duplicate key value violates unique constraint \"t_pkey\"",
                "Key (id)=(secret) already exists.",
            ),
            (
                "23505",
                "duplicate key value violates unique constraint \"t_pkey\"",
                "Schlüssel »(id)=(secret)« existiert bereits.",
            ),
            (
                "23502",
                "null value in column \"a\" of relation \"t\" violates not-null constraint",
                "Failing row contains (secret, null).",
            ),
            ("44000", "new row violates check option for view \"v\"", "Failing row contains (secret)."),
            ("P0001", "the row \"secret\" of secret@example.com is not allowed", "the row was secret"),
            ("42P17", "x", "Key (id)=(secret) is duplicated."),
            ("54000", "row is too big: size 8240, maximum size 8160", "secret"),
            ("42601", "syntax error at or near \"'secret'\"", ""),
        ] {
            let shown = Report {
                detail: Some(detail),
                hint: Some("secret").filter(|_| code == "22P02"),
                ..error(code, message)
            };
            assert!(!shown.to_string().contains("secret"), "{shown}");
        }
        // A function chooses its SQLSTATE.
        for code in ["23505", "42501", "MY001", "P0001"] {
            let raised = Report {
                detail: Some("secret"),
                hint: Some("secret"),
                context: Some("PL/pgSQL function f() line 3 at RAISE\nSQL statement"),
                ..error(code, "the mail \"secret\" of secret@example.com is taken")
            };
            let expected = format!(
                "SQLSTATE {code}: the mail \"…\" of … is taken; in: PL/pgSQL function f() line 3 at RAISE"
            );
            assert_eq!(raised.to_string(), expected);
        }
        let named =
            Report { detail: Some("Key (email)=(x@y) already exists."), ..error("23505", "duplicate key") };
        assert_eq!(named.to_string(), "SQLSTATE 23505: duplicate key; detail: Key (email) already exists");
    }
}
