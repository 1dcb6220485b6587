//! Exit codes: documented, so that scripts can tell what happened.

use std::fmt;

use crate::client::ClientError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// It failed.
    Failure = 1,
    /// It was called wrongly.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// It contradicts the present state, or an operation needs a person.
    Conflict = 4,
    /// No answer from the server.
    Unreachable = 5,
    /// An operation was rolled back or cancelled.
    OperationFailed = 6,
}

/// A failure that knows its exit code.
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
    /// A failure with this code.
    pub fn with(self, message: impl fmt::Display) -> anyhow::Error {
        Coded { exit: self, message: message.to_string() }.into()
    }

    /// The code of a failure.
    pub fn of(error: &anyhow::Error) -> Self {
        if let Some(coded) = error.downcast_ref::<Coded>() {
            return coded.exit;
        }
        match error.downcast_ref::<ClientError>() {
            Some(ClientError::Unreachable { .. }) => Self::Unreachable,
            Some(ClientError::Refused { status: 404, .. }) => Self::NotFound,
            Some(ClientError::Refused { status: 409 | 412, .. }) => Self::Conflict,
            _ => Self::Failure,
        }
    }
}
