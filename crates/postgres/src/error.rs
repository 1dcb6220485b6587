//! Errors of connections, sessions and pools, and their classification by cause. The texts may quote values.

use std::error::Error as _;
use std::{fmt, io};

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::report::Report;

/// An error of the TLS setup.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Error of a connection, a session or a pool.
#[derive(Debug)]
pub enum Error {
    /// No session of the pool became free in time.
    Busy,
    /// The pool is closed.
    Closed,
    /// The server did not answer in time.
    TimedOut,
    /// The query returned no row.
    NoRow,
    /// TLS cannot be set up: a file of certificates or keys is missing or unreadable.
    Tls(Fault),
    /// An error of the driver or the server, and the text that was sent, if it is known.
    Driver(tokio_postgres::Error, Option<Box<str>>),
}

/// Cause of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No session became free in time.
    Busy,
    /// The connection was not made, or broke before the server replied.
    Lost(io::ErrorKind),
    /// TLS was refused, or a certificate does not prove what it must.
    Tls,
    /// The login failed before the server could check it: the URL has no password, or the server and the URL have no way to
    /// authenticate in common.
    Credentials,
    /// The server takes no writes, and the URL asks for one that does.
    ReadOnly,
    /// The server rejected it: see [`Error::report`].
    Database,
    /// A statement contains a character that cannot be sent.
    Unsendable,
    /// The driver rejected a value, a result or an address.
    Other,
}

impl Error {
    /// An error of a statement, with its text.
    pub(crate) fn of(statement: &str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |error| Self::Driver(error, Some(statement.into()))
    }

    /// The server's error, without values; none if the error is not from the server.
    pub fn report(&self) -> Option<Report<'_>> {
        match self {
            Self::Driver(error, statement) => Some(Report::new(error.as_db_error()?, statement.as_deref())),
            _ => None,
        }
    }

    /// What the server said, as it said it: it may quote values.
    pub fn database(&self) -> Option<&DbError> {
        match self {
            Self::Driver(error, _) => error.as_db_error(),
            _ => None,
        }
    }

    /// Whether the server ended the session with this error.
    pub fn ends_session(&self) -> bool {
        let severity = self.database().and_then(DbError::parsed_severity);
        matches!(severity, Some(Severity::Fatal | Severity::Panic))
    }

    /// The server's SQLSTATE.
    pub fn code(&self) -> Option<&str> {
        self.database().map(|error| error.code().code())
    }

    /// Cause of the error.
    pub fn kind(&self) -> Kind {
        let error = match self {
            Self::Busy => return Kind::Busy,
            Self::Closed => return Kind::Lost(io::ErrorKind::NotConnected),
            Self::TimedOut => return Kind::Lost(io::ErrorKind::TimedOut),
            Self::NoRow => return Kind::Other,
            Self::Tls(_) => return Kind::Tls,
            Self::Driver(error, _) => error,
        };
        if error.as_db_error().is_some() {
            return Kind::Database;
        }
        if error.is_closed() {
            return Kind::Lost(io::ErrorKind::UnexpectedEof);
        }
        // The driver tells these apart only by the beginning of the text.
        let text = error.to_string();
        if text.starts_with("error performing TLS") {
            return Kind::Tls;
        }
        if text.starts_with("authentication error") || text.starts_with("invalid configuration") {
            return Kind::Credentials;
        }
        if text.starts_with("unexpected message") {
            return Kind::Lost(io::ErrorKind::InvalidData);
        }
        match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
            Some(_) if text.starts_with("error encoding") => Kind::Unsendable,
            Some(error) if error.to_string() == "database does not allow writes" => Kind::ReadOnly,
            Some(error) => Kind::Lost(error.kind()),
            None => Kind::Other,
        }
    }

    /// Whether a later attempt to connect may succeed: the server is starting or has no connection left.
    pub(crate) fn is_transient(&self) -> bool {
        let later = [SqlState::TOO_MANY_CONNECTIONS, SqlState::CANNOT_CONNECT_NOW];
        match self.database() {
            Some(error) => later.contains(error.code()),
            None => self.kind() == Kind::Lost(io::ErrorKind::ConnectionRefused),
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Driver(error, None)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("no session became free in time"),
            Self::Closed => f.write_str("the pool is closed"),
            Self::TimedOut => f.write_str("the server did not answer in time"),
            Self::NoRow => f.write_str("the query returned no row"),
            Self::Tls(why) => write!(f, "no TLS: {why}"),
            Self::Driver(error, _) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Driver(error, _) => error.source(),
            _ => None,
        }
    }
}
