//! Errors of use cases: independent of the transport, with the public message apart from the internal cause.
//! The server maps each kind to an HTTP status in one place.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::{ErrorCode, Failure, FailureClass};

/// One faulty field of a request or a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FieldError {
    /// Path of the field, `a.b[2].c`; empty for the whole document.
    pub path: String,
    /// Description of the fault, and how to fix it.
    pub message: String,
}

impl FieldError {
    /// A fault at `path`.
    pub fn new(path: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { path: path.into(), message: message.to_string() }
    }
}

/// Kind of an error, for the mapping to an HTTP status or an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request has invalid fields; `errors` names all of them.
    Invalid,
    /// The credential is missing or unknown.
    Unauthenticated,
    /// The credential does not allow this.
    Forbidden,
    /// The tenant is suspended only because a payment is missing.
    PaymentRequired,
    /// The object does not exist, or the caller may not see it.
    NotFound,
    /// The request conflicts with the current state, such as a taken name, a busy tenant, or the tenant's status.
    Conflict,
    /// The object has changed since the caller read it.
    PreconditionFailed,
    /// The object existed, and is no longer available.
    Gone,
    /// The client has tried too often; a retry after a while is safe.
    TooMany,
    /// The registry or another service that Tenantry needs does not respond. A retry is safe.
    Unavailable,
    /// A defect of Tenantry.
    Internal,
}

/// A failed use case.
#[derive(Clone, Debug)]
pub struct Error {
    /// Code of the error, for programs.
    pub code: ErrorCode,
    /// Message for people, in one sentence: what is wrong, and the fix. Contains no secrets and no data of
    /// other tenants.
    pub message: String,
    /// Faulty fields.
    pub errors: Vec<FieldError>,
    /// Internal cause, for the log only.
    pub cause: Option<String>,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorView {
    /// Stable error code; `docs/errors/` explains each.
    pub code: String,
    /// Whether a retry can succeed. Missing in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// Message for people.
    pub message: String,
    /// The step where it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Seconds to wait before a retry, if the failed server asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl ErrorView {
    /// The public part of a failure.
    pub fn of(failure: &Failure, step: Option<&str>) -> Self {
        Self {
            code: failure.code.clone(),
            class: Some(failure.class),
            message: failure.message.clone(),
            step: step.map(str::to_owned),
            retry_after: failure.retry_after_ms.map(|ms| ms.div_ceil(1_000)),
        }
    }
}

/// Result of a use case.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with this code.
    pub fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), errors: Vec::new(), cause: None }
    }
    /// Kind of the error, from the HTTP status of its code.
    pub const fn kind(&self) -> ErrorKind {
        match self.code.status() {
            Some(401) => ErrorKind::Unauthenticated,
            Some(402) => ErrorKind::PaymentRequired,
            Some(403) => ErrorKind::Forbidden,
            Some(404) => ErrorKind::NotFound,
            Some(409) => ErrorKind::Conflict,
            Some(410) => ErrorKind::Gone,
            Some(412) => ErrorKind::PreconditionFailed,
            Some(429) => ErrorKind::TooMany,
            Some(503) => ErrorKind::Unavailable,
            Some(400..=499) => ErrorKind::Invalid,
            _ => ErrorKind::Internal,
        }
    }
    /// Faulty fields, all of them.
    pub fn invalid(code: ErrorCode, errors: Vec<FieldError>) -> Self {
        let message = match errors.as_slice() {
            [one] if one.path.is_empty() => one.message.clone(),
            [one] => format!("`{}` {}", one.path, one.message),
            many => format!("{} fields are not valid", many.len()),
        };
        Self { errors, ..Self::new(code, message) }
    }
    /// There is no such thing.
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("there is no such {what}"))
    }
    /// The registry or the keyring does not answer.
    pub fn unavailable(cause: impl fmt::Display) -> Self {
        let message = "the registry does not respond; try again";
        Self { cause: Some(cause.to_string()), ..Self::new(ErrorCode::Unavailable, message) }
    }
    /// A provider, or the archive store, does not answer. `what` names it in the message, such as "the bucket".
    pub fn provider_unavailable(what: &str, cause: impl fmt::Display) -> Self {
        let message = format!("{what} does not respond; try again");
        let error = Self::new(ErrorCode::ProviderUnavailable, message);
        Self { cause: Some(cause.to_string()), ..error }
    }
    /// A failure of a provider, or of the archive store. `what` names it in the message, such as "the bucket".
    pub fn provider(what: &str, failure: Failure) -> Self {
        if matches!(failure.class, FailureClass::Retryable | FailureClass::Unknown) {
            return Self::provider_unavailable(what, failure);
        }
        let message =
            format!("{what} failed, and fails again until an operator acts; the server's log has the cause");
        Self { cause: Some(failure.to_string()), ..Self::new(ErrorCode::ProviderFailed, message) }
    }
    /// A defect inside Tenantry.
    pub fn internal(cause: impl fmt::Display) -> Self {
        let message = "internal error of the server; its log has the cause under this request's id";
        Self { cause: Some(cause.to_string()), ..Self::new(ErrorCode::Internal, message) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}
impl std::error::Error for Error {}
