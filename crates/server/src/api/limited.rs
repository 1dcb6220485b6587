//! Responses to clients that are over a limit: 429 for their own share, 503 if the server is full.

use std::time::Duration;

use axum::http::{HeaderValue, header};
use tenantry_model::ErrorCode;

use super::observe::new_request_id;
use super::problem::Problem;

/// Time after which a client should try again if a place may become free at any time.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The problem of a client over this limit, which should try again after this time.
pub fn limited(code: ErrorCode, wait: Duration) -> Problem {
    let seconds = wait.as_millis().div_ceil(1_000).max(1);
    let seconds = HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX));
    Problem::new(code, code.cause()).with(header::RETRY_AFTER, seconds)
}

/// The same as a whole response in HTTP/1.1, for a connection that is closed after it.
pub fn refusal(code: ErrorCode) -> Vec<u8> {
    limited(code, RETRY_AFTER).on_the_wire(&new_request_id())
}
