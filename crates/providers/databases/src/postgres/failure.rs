//! Maps errors of PostgreSQL to failures: class and code by SQLSTATE, and a message with the server's own words, which
//! name objects and never row values.

use tenantry_model::Failure;
use tenantry_postgres::sqlstate::{LOST, Meaning, meaning};
use tenantry_postgres::{Error, Kind, Report, Session};

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
    match (error.kind(), error.report()) {
        (Kind::Busy, _) => connecting(error),
        (Kind::Lost(_), _) => Failure::unknown("connection_lost", LOST),
        (Kind::Unsendable, _) => {
            Failure::invalid("bad_value", "a text contains a NUL character, which PostgreSQL cannot store")
        }
        (_, Some(report)) => {
            let Meaning { class, code, sentence } = meaning(error.code().unwrap_or_default());
            Failure::new(class, code.as_str(), format!("{sentence} ({report})"))
        }
        // Other errors may quote values.
        _ => Failure::fatal("database", "PostgreSQL returned a result of an unexpected form"),
    }
}

/// Runs a statement of a file; a failure comes with the line in the statement, from 0, if the server tells it.
pub async fn run_statement(connection: &mut Session, sql: &str) -> Result<(), (Failure, usize)> {
    connection.run(sql).await.map_err(|error| {
        let report = error.report();
        let line = report.as_ref().and_then(Report::line).unwrap_or_default();
        match report.filter(|_| error.code() == Some(IN_USE)) {
            Some(report) => {
                let why = "an earlier statement of the file still uses the object: end it before, or move this one to another file";
                (Failure::fatal("database", format!("{why} ({report})")), line)
            }
            None => (failure(error), line),
        }
    })
}

/// The object is in use. A statement of a file waits for other sessions, so its own session uses the object: by a cursor
/// that is open, or by triggers and keys that are checked later.
const IN_USE: &str = "55006";

/// Whether the error says that an object to be created exists already.
pub fn is_duplicate(error: &Error) -> bool {
    // Of two sessions that create the same object at once, the second may violate the catalogue's unique index.
    error.code().is_some_and(|code| ["42P04", "42P06", "42710", "23505"].contains(&code))
}

#[cfg(test)]
mod tests {
    use tenantry_model::FailureClass::{Retryable, Unknown};

    use super::*;

    #[test]
    fn connection_errors_before_a_statement_are_retryable() {
        assert_eq!(connecting(Error::Closed).class, Retryable);
        assert_eq!(failure(Error::Closed).class, Unknown);
    }
}
