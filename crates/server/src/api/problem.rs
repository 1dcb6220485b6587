//! Problems: the body of every response with a status of 400 or above (RFC 9457), and the mapping from errors
//! of the control plane to statuses. A problem never quotes the request's body and never contains an internal
//! cause.

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use tenantry_control::error::{Error, ErrorKind, FieldError};
use tenantry_model::ErrorCode;

/// The media type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// Always `about:blank`; `code` identifies the problem.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Name of the HTTP status.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Message for people: what is wrong and how to fix it.
    pub detail: String,
    /// Stable code for programs, such as `slug_taken`.
    pub code: String,
    /// The error as OAuth names it (RFC 6749 §5.2); only for `/auth/token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// Invalid fields of the request.
    pub errors: Vec<FieldError>,
    /// Request id, also in the header `x-request-id` and in the log.
    pub request_id: String,
    /// Headers that the status requires.
    #[serde(skip)]
    #[schemars(skip)]
    headers: HeaderMap,
    /// Internal cause, for the log only.
    #[serde(skip)]
    #[schemars(skip)]
    cause: Option<String>,
}

/// Result of a handler.
pub type Result<T = Response> = std::result::Result<T, Problem>;

impl Problem {
    /// A problem with this code, whose status is that of the list, without headers and invalid fields.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let status = code.status().and_then(|status| StatusCode::from_u16(status).ok());
        Self::with_status(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), code, detail)
    }

    /// The same with another status, for what a layer below the handlers has rejected.
    pub fn with_status(status: StatusCode, code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.to_string(),
            error: None,
            errors: Vec::new(),
            request_id: String::new(),
            headers: HeaderMap::new(),
            cause: None,
        }
    }

    /// Sets the invalid fields.
    pub fn with_errors(self, errors: Vec<FieldError>) -> Self {
        Self { errors, ..self }
    }

    /// Adds the error as OAuth names it.
    pub fn for_oauth(self) -> Self {
        let error = match self.status {
            400 | 401 if self.code.ends_with("_refused") => Some("invalid_grant"),
            400 | 422 => Some("invalid_request"),
            _ => None,
        };
        Self { error, ..self }
    }

    /// Adds a header.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The internal cause, for the log.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The bytes of the response in HTTP/1.1, with which the connection ends.
    pub fn on_the_wire(mut self, request_id: &str) -> Vec<u8> {
        request_id.clone_into(&mut self.request_id);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {} {}\r\n", self.status, self.title).into_bytes();
        let (length, id) = (HeaderValue::from(body.len()), HeaderValue::from_str(request_id));
        self.headers.extend(id.ok().map(|id| (HeaderName::from_static("x-request-id"), id)));
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        self.headers.insert(CONTENT_LENGTH, length);
        self.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        for (name, value) in &self.headers {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        bytes.extend(b"\r\n");
        bytes.extend(body);
        bytes
    }

    /// Creates the response once the request id is known.
    pub fn finish(mut self, request_id: &str) -> Response {
        request_id.clone_into(&mut self.request_id);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        let problem =
            Self { errors: error.errors, cause: error.cause, ..Self::new(error.code, error.message) };
        match kind {
            ErrorKind::Unauthenticated => {
                problem.with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tenantry\""))
            }
            // The time for which failed sign-ins are counted.
            ErrorKind::TooMany => problem.with(RETRY_AFTER, HeaderValue::from_static("900")),
            ErrorKind::Unavailable => problem.with(RETRY_AFTER, HeaderValue::from_static("1")),
            _ => problem,
        }
    }
}

impl IntoResponse for Problem {
    /// Passes the problem to the outermost layer, which adds the request id and writes the body.
    fn into_response(self) -> Response {
        let mut response =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_cause_is_not_in_the_response() {
        let problem = Problem::from(Error::internal("password=hunter2"));
        assert_eq!(problem.cause(), Some("password=hunter2"));
        let response = problem.finish("req_1");
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("\"request_id\":\"req_1\"") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn problems_tell_the_client_how_to_continue() {
        let unknown = Error::new(ErrorCode::Unauthenticated, "give a key");
        assert!(Problem::from(unknown).finish("r").headers().contains_key(WWW_AUTHENTICATE));
        assert_eq!(Problem::from(Error::unavailable("x")).finish("r").headers()[RETRY_AFTER], "1");
    }
}
