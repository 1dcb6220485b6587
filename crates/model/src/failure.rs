//! Classified failures: the class says whether the call may have taken effect and whether a retry can help.
//! The engine decides how long to retry.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Outcome of a failed call, and whether a retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// No effect; the same call may succeed later.
    Retryable,
    /// Sent without an answer, so it may have taken effect. Retried like `Retryable`; a compensation waits
    /// for the in-flight bound and runs again.
    Unknown,
    /// The request is wrong; a retry without a change fails again.
    Invalid,
    /// Permanent: the name belongs to another owner, or the provider rejects the call.
    Fatal,
}

/// A classified failure with a message, which contains neither secrets nor personal data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Class of the failure.
    pub class: FailureClass,
    /// Stable code for programs, such as `timeout` or `name_taken`.
    pub code: String,
    /// One sentence: what failed and, where there is one, the fix.
    pub message: String,
    /// The server's `Retry-After`, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Wrong answers in a row, this one included: the dependency works, so that only a few retries help. 0 is
    /// a dependency that does not work, which is waited for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wrong_answers: u32,
    /// True when the attempt ended before it created or changed anything; in a step's record, when every attempt did. There
    /// is nothing to undo.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untouched: bool,
    /// The provider whose call failed, if a retry can help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Failure {
    /// A failure of this class.
    pub fn new(class: FailureClass, code: &str, message: impl fmt::Display) -> Self {
        let (code, message) = (code.to_owned(), message.to_string());
        Self {
            class,
            code,
            message,
            retry_after_ms: None,
            wrong_answers: 0,
            untouched: false,
            provider: None,
        }
    }
    /// A failure without effect, to be retried.
    pub fn retryable(code: &str, message: impl fmt::Display) -> Self {
        Self::new(FailureClass::Retryable, code, message)
    }
    /// A failure that may have taken effect.
    pub fn unknown(code: &str, message: impl fmt::Display) -> Self {
        Self::new(FailureClass::Unknown, code, message)
    }
    /// A wrong request.
    pub fn invalid(code: &str, message: impl fmt::Display) -> Self {
        Self::new(FailureClass::Invalid, code, message)
    }
    /// A permanent failure.
    pub fn fatal(code: &str, message: impl fmt::Display) -> Self {
        Self::new(FailureClass::Fatal, code, message)
    }
    /// Sets the shortest delay before a retry.
    pub fn after(mut self, delay: Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        self
    }
    /// Marks a wrong answer of a dependency that works: a few retries decide, and it is not waited for.
    pub fn wrong_answer(self) -> Self {
        Self { wrong_answers: 1, ..self }
    }
    /// Marks an attempt that ended before it created or changed anything.
    pub fn untouched(self) -> Self {
        Self { untouched: true, ..self }
    }
    /// True when a retry can help.
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
