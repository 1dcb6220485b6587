//! Exit codes of the command line, which scripts rely on, and errors that carry one.

use std::fmt;

use crate::client::ClientError;

/// Exit code of a failed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Any other failure.
    Failure = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// The named object does not exist.
    NotFound = 3,
    /// Conflict with the object's present state, or an operation needs attention.
    Conflict = 4,
    /// The server did not respond.
    Unreachable = 5,
    /// An operation was rolled back or cancelled.
    OperationFailed = 6,
}

/// An error with an exit code.
#[derive(Debug)]
struct Coded {
    exit: Exit,
    message: String,
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Coded {}

impl Exit {
    /// Creates an error with this code.
    pub fn with(self, message: impl fmt::Display) -> anyhow::Error {
        Coded { exit: self, message: message.to_string() }.into()
    }

    /// The exit code of an error.
    pub fn of(error: &anyhow::Error) -> Self {
        if let Some(coded) = error.downcast_ref::<Coded>() {
            return coded.exit;
        }
        match error.downcast_ref::<ClientError>() {
            Some(ClientError::Unreachable { .. }) => Self::Unreachable,
            Some(ClientError::Problem { status: 404, .. }) => Self::NotFound,
            Some(ClientError::Problem { status: 409 | 412, .. }) => Self::Conflict,
            _ => Self::Failure,
        }
    }
}
