//! Maps errors of PostgreSQL to failures: class, code, and a message with the server's own words. Messages name
//! objects, never row values: parts of an error that quote rows or values are left out.

use std::fmt;

use tenantry_model::Failure;
use tenantry_postgres::{Error, Kind};

/// Maximum length in characters of each text taken over from the server.
const MAX_TEXT: usize = 500;

/// SQLSTATE classes whose message quotes values: failed conversions, and foreign or external routines.
const MESSAGE_QUOTES_VALUES: [&str; 4] = ["22", "38", "39", "HV"];

/// SQLSTATE classes whose detail and hint name objects, sessions or files only. Those of constraint violations
/// (23, 44) contain rows, and those of RAISE (P0) contain what a migration's author put in.
const DETAIL_NAMES_OBJECTS: [&str; 12] =
    ["0A", "28", "2B", "3D", "3F", "40", "42", "53", "55", "57", "58", "XX"];

/// Beginnings of details that quote a row, whatever their class.
const ROW_DETAILS: [&str; 3] = ["Key (", "Failing row contains", "Partition key of the failing row"];

/// Maps an error of connecting: nothing was sent to the server.
pub fn connecting(error: Error) -> Failure {
    match error.kind() {
        Kind::Busy => Failure::retryable(
            "busy",
            "no connection to PostgreSQL became free: check that the server answers, or raise `connections`",
        ),
        Kind::Lost(why) => Failure::retryable(
            "unreachable",
            format!("PostgreSQL cannot be reached: {why}; check that it runs at this address"),
        ),
        Kind::Tls => Failure::retryable(
            "unreachable",
            "no TLS connection to PostgreSQL: check `sslmode` and the server's certificate",
        ),
        Kind::Credentials => Failure::fatal(
            "bad_credentials",
            "PostgreSQL and `url` have no way to log in in common: add the password, or change `channel_binding`",
        ),
        Kind::ReadOnly => Failure::retryable(
            "read_only",
            "PostgreSQL accepts no writes: it is a standby or read-only; name the primary",
        ),
        Kind::Database => match failure(error) {
            // The server ended the session before a statement was sent.
            lost if lost.code == "connection_lost" => Failure::retryable("restarting", lost.message),
            other => other,
        },
        Kind::Unsendable | Kind::Other => {
            Failure::retryable("unreachable", "the connection to PostgreSQL failed: check its URL")
        }
    }
}

/// Maps an error of a statement.
pub fn failure(error: Error) -> Failure {
    match (error.kind(), error.database()) {
        (Kind::Busy, _) => connecting(error),
        (Kind::Lost(_), _) => Failure::unknown("connection_lost", LOST),
        (Kind::Unsendable, _) => {
            Failure::invalid("bad_value", "a text contains a NUL character, which PostgreSQL cannot store")
        }
        (_, Some(error)) => by_code(&ServerError {
            code: error.code().code(),
            message: error.message(),
            detail: error.detail(),
            hint: error.hint(),
        }),
        // Other errors may quote values.
        _ => Failure::fatal("database", "PostgreSQL returned a result of an unexpected form"),
    }
}

const LOST: &str =
    "the connection to PostgreSQL ended before it replied, so the statement may have taken effect";

/// What PostgreSQL says about an error. Displays as `SQLSTATE code: message; detail: …; hint: …`, without the
/// parts that may quote values.
struct ServerError<'a> {
    code: &'a str,
    message: &'a str,
    detail: Option<&'a str>,
    hint: Option<&'a str>,
}

impl ServerError<'_> {
    /// The first two characters of the SQLSTATE.
    fn class(&self) -> &str {
        self.code.get(..2).unwrap_or_default()
    }

    fn safe_message(&self) -> Option<&str> {
        (!MESSAGE_QUOTES_VALUES.contains(&self.class())).then_some(self.message)
    }

    fn safe_detail(&self) -> Option<&str> {
        let quotes_row = |detail: &&str| ROW_DETAILS.iter().any(|start| detail.starts_with(start));
        self.detail
            .filter(|_| DETAIL_NAMES_OBJECTS.contains(&self.class()))
            .filter(|detail| !quotes_row(detail))
    }

    fn safe_hint(&self) -> Option<&str> {
        self.hint.filter(|_| DETAIL_NAMES_OBJECTS.contains(&self.class()))
    }

    /// A sentence followed by the server's words in parentheses.
    fn after(&self, sentence: &str) -> String {
        format!("{sentence} ({self})")
    }
}

impl fmt::Display for ServerError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQLSTATE {}", self.code)?;
        if let Some(message) = self.safe_message() {
            write!(f, ": {}", one_line(message))?;
        }
        if let Some(detail) = self.safe_detail() {
            write!(f, "; detail: {}", one_line(detail))?;
        }
        if let Some(hint) = self.safe_hint() {
            write!(f, "; hint: {}", one_line(hint))?;
        }
        Ok(())
    }
}

/// The text without line breaks and control characters, cut to its maximum length.
fn one_line(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect()
}

/// Class and code by SQLSTATE (appendix A of PostgreSQL's manual).
fn by_code(error: &ServerError<'_>) -> Failure {
    let retryable = |code: &str, sentence: &str| Failure::retryable(code, error.after(sentence));
    let fatal = |code: &str, sentence: &str| Failure::fatal(code, error.after(sentence));
    match error.code {
        "53300" => retryable(
            "too_many_connections",
            "PostgreSQL has no connection left: raise its `max_connections`, or lower `connections`",
        ),
        "53100" => retryable("disk_full", "PostgreSQL's disk is full: free space on it"),
        "57P03" => retryable("restarting", "PostgreSQL is starting, stopping or recovering; try again"),
        "57014" => retryable("timeout", "PostgreSQL cancelled a statement that took too long; try again"),
        "40P01" => {
            retryable("deadlock", "PostgreSQL rolled the transaction back to end a deadlock; try again")
        }
        "40001" => retryable("serialization", "a concurrent transaction was faster; try again"),
        "55P03" => retryable("busy", "another session has held a lock for too long; try again, or end it"),
        "55006" => retryable("busy", "other sessions use the object; try again, or end them"),
        "25006" => retryable(
            "read_only",
            "PostgreSQL accepts no writes: it is a standby or read-only; name the primary",
        ),
        // A restart or an administrator ended the session, perhaps during a commit.
        "57P01" | "57P02" | "57P05" | "25P03" => Failure::unknown("connection_lost", error.after(LOST)),
        "28000" | "28P01" => {
            fatal("bad_credentials", "PostgreSQL rejects the administrator's name or password: correct `url`")
        }
        "3D000" | "57P04" => fatal("no_database", "the database does not exist on the server"),
        "42501" => {
            fatal("not_allowed", "PostgreSQL denies it to the administrator: grant the missing privilege")
        }
        "42939" => Failure::invalid(
            "bad_name",
            error.after("PostgreSQL reserves the name: change `names` in the template"),
        ),
        "XX001" | "XX002" => fatal("corrupt", "PostgreSQL's data is damaged: restore it from a backup"),
        // Two sessions changed one row of the catalogue, or an internal check failed.
        "XX000" => retryable("rolled_back", "PostgreSQL reported an internal error; try again"),
        _ => by_class(error),
    }
}

/// Class and code by the first two characters of the SQLSTATE.
fn by_class(error: &ServerError<'_>) -> Failure {
    let retryable = |code: &str, sentence: &str| Failure::retryable(code, error.after(sentence));
    match error.class() {
        "08" => Failure::unknown("connection_lost", error.after(LOST)),
        "22" => Failure::invalid("bad_value", error.after("a value does not fit its column")),
        "23" => Failure::invalid("constraint", error.after("the row violates a constraint")),
        "40" => retryable("rolled_back", "PostgreSQL rolled the transaction back; try again"),
        "53" => retryable("out_of_resources", "PostgreSQL is out of memory or another resource"),
        "58" => retryable("io_error", "PostgreSQL cannot read or write its files: check its disk"),
        // Errors in SQL, and missing or existing objects.
        _ => Failure::fatal("database", error.after("PostgreSQL rejected a statement")),
    }
}

/// Whether the error says that an object to be created exists already.
pub fn is_duplicate(error: &Error) -> bool {
    // Of two sessions that create the same object at once, the second may violate the catalogue's unique index.
    error.code().is_some_and(|code| ["42P04", "42P06", "42710", "23505"].contains(&code))
}

#[cfg(test)]
mod tests {
    use tenantry_model::FailureClass::{self, Fatal, Invalid, Retryable, Unknown};

    use super::*;

    fn error(code: &str) -> ServerError<'_> {
        ServerError { code, message: "message", detail: None, hint: None }
    }

    #[test]
    fn each_sqlstate_has_its_class_and_code() {
        let classes: [(&str, FailureClass, &str); 21] = [
            ("53300", Retryable, "too_many_connections"),
            ("53100", Retryable, "disk_full"),
            ("53200", Retryable, "out_of_resources"),
            ("57P01", Unknown, "connection_lost"),
            ("57P02", Unknown, "connection_lost"),
            ("57P03", Retryable, "restarting"),
            ("57014", Retryable, "timeout"),
            ("40P01", Retryable, "deadlock"),
            ("40001", Retryable, "serialization"),
            ("55P03", Retryable, "busy"),
            ("08006", Unknown, "connection_lost"),
            ("25006", Retryable, "read_only"),
            ("28P01", Fatal, "bad_credentials"),
            ("3D000", Fatal, "no_database"),
            ("42501", Fatal, "not_allowed"),
            ("42601", Fatal, "database"),
            ("54000", Fatal, "database"),
            ("23505", Invalid, "constraint"),
            ("22P02", Invalid, "bad_value"),
            ("XX000", Retryable, "rolled_back"),
            ("XX001", Fatal, "corrupt"),
        ];
        for (code, class, word) in classes {
            let failure = by_code(&error(code));
            assert_eq!((failure.class, &*failure.code), (class, word), "{code}");
            assert!(failure.message.contains(&format!("SQLSTATE {code}")), "{failure}");
        }
    }

    #[test]
    fn message_detail_and_hint_of_the_server_are_passed_on() {
        let failure = by_code(&ServerError {
            code: "2BP01",
            message: "cannot drop table a because other objects depend on it",
            detail: Some("view b depends on table a.\nview c depends on table a."),
            hint: Some("Use DROP ... CASCADE to drop the dependent objects too."),
        });
        let expected = "PostgreSQL rejected a statement (SQLSTATE 2BP01: cannot drop table a because other objects \
                        depend on it; detail: view b depends on table a. view c depends on table a; \
                        hint: Use DROP ... CASCADE to drop the dependent objects too)";
        assert_eq!(failure.message, expected);
        let failure = by_code(&ServerError { message: "tuple concurrently updated", ..error("XX000") });
        assert!(failure.message.contains("SQLSTATE XX000: tuple concurrently updated"), "{failure}");
        let long = "x".repeat(5_000);
        assert!(by_code(&ServerError { message: &long, ..error("42601") }).message.len() < 600);
    }

    #[test]
    fn values_of_rows_are_left_out() {
        for (code, message, detail) in [
            ("22P02", "invalid input syntax for type integer: \"secret\"", None),
            ("HV000", "the remote server returned secret", Some("secret")),
            (
                "23505",
                "duplicate key value violates unique constraint \"t_pkey\"",
                Some("Key (id)=(secret) already exists."),
            ),
            (
                "23502",
                "null value in column \"a\" of relation \"t\" violates not-null constraint",
                Some("Failing row contains (secret, null)."),
            ),
            ("44000", "new row violates check option for view \"v\"", Some("Failing row contains (secret).")),
            ("P0001", "rejected by a trigger", Some("the row was secret")),
            ("42P17", "x", Some("Key (id)=(secret) is duplicated.")),
            ("54000", "row is too big: size 8240, maximum size 8160", Some("secret")),
        ] {
            let failure = by_code(&ServerError { code, message, detail, hint: None });
            assert!(!failure.message.contains("secret"), "{failure}");
        }
        let named = by_code(&ServerError {
            message: "null value in column \"a\" of relation \"t\" violates not-null constraint",
            ..error("23502")
        });
        assert!(named.message.contains("column \"a\" of relation \"t\""), "{named}");
    }

    #[test]
    fn connection_errors_before_a_statement_are_retryable() {
        assert_eq!(connecting(Error::Closed).class, Retryable);
        assert_eq!(failure(Error::Closed).class, Unknown);
    }
}
