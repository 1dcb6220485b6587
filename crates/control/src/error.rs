//! What a use case answers when it cannot do what was asked: no transport in it, public text and internal cause kept
//! apart. The server maps a kind to a status in one place.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One faulty field of a request or a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FieldError {
    /// Path of the field, `a.b[2].c`; empty for the whole document.
    pub path: String,
    /// What is wrong, and the fix.
    pub message: String,
}

impl FieldError {
    /// A fault at `path`.
    pub fn new(path: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { path: path.into(), message: message.to_string() }
    }
}

/// Which sort of failure, for the mapping to a status or an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Some fields are wrong; `errors` names all of them.
    Invalid,
    /// No or an unknown credential.
    Unauthenticated,
    /// The credential does not allow this.
    Forbidden,
    /// It would be allowed once somebody has paid.
    PaymentRequired,
    /// There is no such thing, or none that the caller may see.
    NotFound,
    /// It contradicts the present state: taken, busy, not possible in this status.
    Conflict,
    /// The thing has changed since the caller read it.
    PreconditionFailed,
    /// It was there once and is not handed out again.
    Gone,
    /// The same idempotency key came with another request.
    KeyReused,
    /// Something that Tenantry needs does not answer; trying again is safe.
    Unavailable,
    /// A defect of ours.
    Internal,
}

/// A failed use case.
#[derive(Clone, Debug)]
pub struct Error {
    /// Which sort.
    pub kind: ErrorKind,
    /// A stable word for programs, such as `slug_taken`.
    pub code: &'static str,
    /// One sentence for people: what is wrong, and the fix. Neither secrets nor somebody else's data.
    pub message: String,
    /// Faulty fields.
    pub errors: Vec<FieldError>,
    /// For the log only.
    pub cause: Option<String>,
}

/// What use cases return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure of this sort.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl fmt::Display) -> Self {
        Self { kind, code, message: message.to_string(), errors: Vec::new(), cause: None }
    }
    /// Faulty fields, all of them.
    pub fn invalid(code: &'static str, errors: Vec<FieldError>) -> Self {
        let message = match errors.as_slice() {
            [one] if one.path.is_empty() => one.message.clone(),
            [one] => format!("`{}` {}", one.path, one.message),
            many => format!("{} fields are not valid", many.len()),
        };
        Self { errors, ..Self::new(ErrorKind::Invalid, code, message) }
    }
    /// There is no such thing.
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorKind::NotFound, "not_found", format!("there is no such {what}"))
    }
    /// It contradicts the present state.
    pub fn conflict(code: &'static str, message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Conflict, code, message)
    }
    /// The registry or the keyring does not answer.
    pub fn unavailable(cause: impl fmt::Display) -> Self {
        let message = "the registry does not answer; nothing is lost, try again";
        Self { cause: Some(cause.to_string()), ..Self::new(ErrorKind::Unavailable, "unavailable", message) }
    }
    /// A provider, or the archive store, does not answer. `what` names it in the message, such as "the bucket".
    pub fn provider_unavailable(what: &str, cause: impl fmt::Display) -> Self {
        let message = format!("{what} does not answer; nothing is lost, try again");
        let error = Self::new(ErrorKind::Unavailable, "provider_unavailable", message);
        Self { cause: Some(cause.to_string()), ..error }
    }
    /// A defect inside Tenantry.
    pub fn internal(cause: impl fmt::Display) -> Self {
        let message = "something went wrong inside Tenantry; the log has the cause under this request's id";
        Self { cause: Some(cause.to_string()), ..Self::new(ErrorKind::Internal, "internal", message) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}
impl std::error::Error for Error {}
