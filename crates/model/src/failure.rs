//! Failure classes: what a failed call means for the next one. Kind and retryability are different questions;
//! this is the second one. How often to retry is the engine's decision, never a provider's.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a failure says about the state of the world and about trying again (design §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Nothing happened; the same call may succeed later.
    Retryable,
    /// The call was sent and no answer came: it may have happened. Retried like `Retryable`, but compensation
    /// must wait and look again before it calls the thing absent.
    Unknown,
    /// The request is wrong and will stay wrong until somebody changes it.
    Invalid,
    /// It cannot be done: somebody else's thing stands there, or the provider refuses for good.
    Fatal,
}

/// A classified failure with a text for people. The text must hold neither secrets nor personal data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What to do about it.
    pub class: FailureClass,
    /// A stable word for programs, such as `timeout` or `name_taken`.
    pub code: String,
    /// One sentence: what went wrong and, where there is one, the fix.
    pub message: String,
    /// The server's own word on when to come back (`Retry-After`), in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure of the class given.
    pub fn new(class: FailureClass, code: &str, message: impl fmt::Display) -> Self {
        Self { class, code: code.to_owned(), message: message.to_string(), retry_after_ms: None }
    }
    /// Nothing happened; try again.
    pub fn retryable(code: &str, message: impl fmt::Display) -> Self {
        Self::new(FailureClass::Retryable, code, message)
    }
    /// It may have happened.
    pub fn unknown(code: &str, message: impl fmt::Display) -> Self {
        Self::new(FailureClass::Unknown, code, message)
    }
    /// The request is wrong.
    pub fn invalid(code: &str, message: impl fmt::Display) -> Self {
        Self::new(FailureClass::Invalid, code, message)
    }
    /// It cannot be done.
    pub fn fatal(code: &str, message: impl fmt::Display) -> Self {
        Self::new(FailureClass::Fatal, code, message)
    }
    /// The same failure, to be retried no sooner than `delay`.
    pub fn after(mut self, delay: Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        self
    }
    /// Whether another attempt can help.
    pub fn may_retry(&self) -> bool {
        matches!(self.class, FailureClass::Retryable | FailureClass::Unknown)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}
impl std::error::Error for Failure {}
