//! The outermost layer. Assigns a request id, writes problem documents, and logs and measures every request.
//! Logs ids and the pattern of the path only: no names, headers or bodies.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use super::App;
use super::call::Principal;
use super::problem::Problem;
use tenantry_model::ErrorCode;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Serves a request and records it in log and metrics.
pub async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let mut response = next.run(request).await;
    let principal = response.extensions_mut().remove::<Principal>();
    let mut response = finish(response, &id);
    let elapsed = started.elapsed();
    let status = response.status().as_u16();
    app.metrics.served(&method, &route, status, elapsed);
    tracing::info!(
        target: "tenantry::access",
        request_id = %id,
        %method,
        route,
        status,
        principal = principal.as_ref().map(|p| p.0.as_str()),
        ms = elapsed.as_millis() as u64,
        "request served"
    );
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("invalid")));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Writes the problem of a failed response; a failure without one, from an outer layer, gets a generic
/// problem.
fn finish(mut response: Response, id: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let problem = response.extensions_mut().remove::<Problem>();
    let problem = problem.unwrap_or_else(|| {
        Problem::with_status(
            status,
            ErrorCode::Rejected,
            status.canonical_reason().unwrap_or("the request was rejected"),
        )
    });
    if let Some(cause) = problem.cause() {
        tracing::error!(request_id = %id, code = problem.code, cause, "request failed");
    }
    problem.finish(id)
}

/// The client's request id if it is safe to log, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let safe = |id: &&str| {
        (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    given.filter(safe).map_or_else(new_request_id, str::to_owned)
}

/// An id for a request that has none.
pub fn new_request_id() -> String {
    format!("req_{}", Uuid::now_v7().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_request_ids_are_accepted() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(value));
            request_id(&headers)
        };
        assert_eq!(with("4bf92f35-77b3.a:7"), "4bf92f35-77b3.a:7");
        for bad in ["", "a b", "a\"b", "{}"] {
            assert!(with(bad).starts_with("req_"), "{bad}");
        }
        assert!(request_id(&HeaderMap::new()).starts_with("req_"));
    }
}
