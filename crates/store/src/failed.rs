//! Errors of both databases, classified in one place: the connection is lost, the database cannot write now, or it
//! rejects the rows.

use std::error::Error as _;

use tenantry_model::FailureClass;
use tenantry_postgres::sqlstate::meaning;

/// Error of a statement.
#[derive(Debug)]
pub struct Failed {
    /// Class of the error.
    pub cause: Cause,
    /// The driver's or the database's text.
    pub message: String,
}

/// Class of an error, which decides how the writer reacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The connection must not be used again.
    Lost,
    /// The database cannot do it now (disk full, locked, shutting down).
    Unavailable,
    /// A unique value is taken.
    Conflict,
    /// The database rejects the statement or its values.
    Refused,
}

impl Failed {
    /// The database did not answer in time.
    pub fn no_answer() -> Self {
        Self { cause: Cause::Lost, message: "no answer in time".to_owned() }
    }

    /// The connection was closed.
    pub fn closed() -> Self {
        Self { cause: Cause::Lost, message: "the connection is closed".to_owned() }
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        let cause = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => sqlite_cause(failure.extended_code),
            // A value has the wrong type; the connection can still be used.
            _ => Cause::Refused,
        };
        Self { cause, message: error.to_string() }
    }
}

impl From<tenantry_postgres::Error> for Failed {
    fn from(error: tenantry_postgres::Error) -> Self {
        let cause = match error.code() {
            Some(_) if error.ends_session() => Cause::Lost,
            Some(code) => postgres_cause(code),
            None if is_unfit(&error) => Cause::Refused,
            // The statement did not reach the server.
            None if !matches!(error, tenantry_postgres::Error::Driver(..)) => Cause::Unavailable,
            None => Cause::Lost,
        };
        Self { cause, message: text(&error) }
    }
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        tenantry_postgres::Error::from(error).into()
    }
}

/// Whether a value could not be encoded or decoded. The driver shows this only by the beginning of its text.
fn is_unfit(error: &tenantry_postgres::Error) -> bool {
    let text = error.to_string();
    text.starts_with("error serializing") || text.starts_with("error deserializing")
}

/// The server's error or, without one, the driver's message with its causes.
fn text(error: &tenantry_postgres::Error) -> String {
    if let Some(report) = error.report() {
        return report.to_string();
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        text.push_str(": ");
        text.push_str(&reason.to_string());
        source = reason.source();
    }
    text
}

/// By SQLSTATE: what it means for a session that is kept and has prepared statements.
fn postgres_cause(code: &str) -> Cause {
    match (code, code.get(..2).unwrap_or_default()) {
        ("23505", _) => Cause::Conflict,
        // The trigger of a registry that has moved; and the files of the server, which no caller can have damaged.
        ("55000", _) | (_, "58") => Cause::Unavailable,
        // An internal error of the server: the same statement is likely to meet it again.
        ("XX000", _) => Cause::Refused,
        // The session was opened while the database was read-only, or is in another state of a transaction than it seems; its
        // prepared statements are gone, or a newer release has changed what they return.
        (_, "25" | "26" | "0A") => Cause::Lost,
        _ => match meaning(code).class {
            FailureClass::Retryable => Cause::Unavailable,
            FailureClass::Unknown => Cause::Lost,
            FailureClass::Invalid | FailureClass::Fatal => Cause::Refused,
        },
    }
}

/// By extended result code.
fn sqlite_cause(code: i32) -> Cause {
    const BUSY: i32 = 5;
    const LOCKED: i32 = 6;
    const NOMEM: i32 = 7;
    const READONLY: i32 = 8;
    const FULL: i32 = 13;
    const TOOBIG: i32 = 18;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    const ERROR: i32 = 1;
    const PRIMARY_KEY: i32 = 1555;
    const UNIQUE: i32 = 2067;
    /// A trigger refuses. The only ones are those of a registry that has moved.
    const TRIGGER: i32 = 1811;
    match (code, code & 0xff) {
        (TRIGGER, _) => Cause::Unavailable,
        (PRIMARY_KEY | UNIQUE, _) => Cause::Conflict,
        (_, BUSY | LOCKED | NOMEM | READONLY | FULL) => Cause::Unavailable,
        (_, TOOBIG | CONSTRAINT | MISMATCH | ERROR) => Cause::Refused,
        // I/O errors and everything stranger: a fresh connection reads the file's true state.
        _ => Cause::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_of_sqlstates() {
        for (code, cause) in [
            // A session that must be replaced: cut, idle for too long, opened while the database was read-only, without its
            // prepared statements, or with those of an older schema.
            ("08006", Cause::Lost),
            ("57P01", Cause::Lost),
            ("25P03", Cause::Lost),
            ("25006", Cause::Lost),
            ("26000", Cause::Lost),
            ("0A000", Cause::Lost),
            // The statement can succeed later: deadlock, disk full, statement timeout, the frozen registry.
            ("40P01", Cause::Unavailable),
            ("53100", Cause::Unavailable),
            ("57014", Cause::Unavailable),
            ("55000", Cause::Unavailable),
            // A damaged server: an I/O error, a missing file, a file in the way.
            ("58030", Cause::Unavailable),
            ("58P01", Cause::Unavailable),
            ("58P02", Cause::Unavailable),
            // It cannot: an internal error, a value too long for its index, a violated check, a wrong type.
            ("XX000", Cause::Refused),
            ("54000", Cause::Refused),
            ("23514", Cause::Refused),
            ("42804", Cause::Refused),
        ] {
            assert_eq!(postgres_cause(code), cause, "{code}");
        }
    }
}
