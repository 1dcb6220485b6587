//! Responses to clients that are over a limit: 429 for their own share, 503 if the server is full.

use axum::http::HeaderValue;
use axum::http::header::RETRY_AFTER;
use tenantry_model::ErrorCode;

use super::observe::new_request_id;
use super::problem::Problem;

/// Seconds after which a client should try again.
const RETRY_SECONDS: u64 = 2;

/// The problem of a client over this limit.
pub fn limited(code: ErrorCode) -> Problem {
    Problem::new(code, code.cause()).with(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS))
}

/// The same as a whole response in HTTP/1.1, for a connection that is closed after it.
pub fn refusal(code: ErrorCode) -> Vec<u8> {
    limited(code).on_the_wire(&new_request_id())
}
