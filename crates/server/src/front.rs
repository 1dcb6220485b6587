//! Calls the public endpoints inside the process, for the smoke test: each call passes through the same
//! router, checks and handlers as a tenant's client, without the network.

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tenantry_control::Front;
use tenantry_model::Failure;
use tower::ServiceExt;

use crate::client::path_segment;

/// Longest response body that is read, in bytes.
const MAX_RESPONSE: usize = 1 << 20;

/// A [`Front`] that calls the router in this process.
pub struct InProcess(pub Router);

impl InProcess {
    async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), Failure> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        let (status, bytes) = self.send(request.body(body).map_err(unreadable)?).await?;
        if bytes.is_empty() {
            return Ok((status, Value::Null));
        }
        Ok((status, serde_json::from_slice(&bytes).map_err(unreadable)?))
    }

    async fn send(&self, request: Request<Body>) -> Result<(StatusCode, Bytes), Failure> {
        let Ok(response) = self.0.clone().oneshot(request).await;
        let status = response.status();
        Ok((status, to_bytes(response.into_body(), MAX_RESPONSE).await.map_err(unreadable)?))
    }

    /// Signs a URL for this object with the token, calls it with these bytes, and returns the response's
    /// body.
    async fn signed(&self, token: &str, method: Method, key: &str, bytes: &[u8]) -> Result<Bytes, Failure> {
        let request = json!({ "key": key, "method": method.as_str(), "expires_in": 60 });
        let signed = self.expect(Method::POST, "/objects/urls", Some(token), Some(&request)).await?;
        let url = signed.get("url").and_then(Value::as_str).unwrap_or_default();
        // Only the path is used: the call stays in this process.
        let path = url.find("/files/").and_then(|at| url.get(at..)).unwrap_or_default();
        let call = format!("{method} /files/…");
        let request = Request::builder().method(method).uri(path).body(Body::from(bytes.to_vec()));
        match self.send(request.map_err(unreadable)?).await? {
            (status, bytes) if status.is_success() => Ok(bytes),
            (status, bytes) => {
                Err(unexpected(&call, status, &serde_json::from_slice(&bytes).unwrap_or_default()))
            }
        }
    }

    /// Calls an endpoint and returns the response's body; any status but a success is a failure.
    async fn expect(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let call = format!("{method} {}", path.split('/').take(3).collect::<Vec<_>>().join("/"));
        match self.call(method, path, token, body).await? {
            (status, value) if status.is_success() => Ok(value),
            (status, problem) => Err(unexpected(&call, status, &problem)),
        }
    }
}

fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::retryable("smoke_test_failed", error)
}

/// The failure for an unexpected status. It names the problem's code only: the detail may contain tenant
/// data.
fn unexpected(call: &str, status: StatusCode, problem: &Value) -> Failure {
    let code = problem.get("code").and_then(Value::as_str).unwrap_or("no problem document");
    let message = format!("{call} returned status {} ({code})", status.as_u16());
    let failure = Failure::retryable("smoke_test_failed", message);
    // What is behind the endpoint does not work, or is too busy.
    let down = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    if down { failure } else { failure.wrong_answer() }
}

#[async_trait]
impl Front for InProcess {
    async fn sign_in(&self, code: &str) -> Result<String, Failure> {
        let grant = json!({ "grant_type": "code", "code": code });
        let token = self.expect(Method::POST, "/auth/token", None, Some(&grant)).await?;
        let token = token.get("access_token").and_then(Value::as_str);
        token.map(str::to_owned).ok_or_else(|| {
            Failure::retryable("smoke_test_failed", "the sign-in returned no token").wrong_answer()
        })
    }

    async fn me(&self, token: &str) -> Result<Value, Failure> {
        self.expect(Method::GET, "/data/me", Some(token), None).await
    }

    async fn insert(&self, token: &str, table: &str, row: &Value) -> Result<Value, Failure> {
        self.expect(Method::POST, &format!("/data/{}", path_segment(table)), Some(token), Some(row)).await
    }

    async fn get(&self, token: &str, table: &str, id: &str) -> Result<Option<Value>, Failure> {
        let path = format!("/data/{}/{}", path_segment(table), path_segment(id));
        match self.call(Method::GET, &path, Some(token), None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, value) if status.is_success() => Ok(Some(value)),
            (status, problem) => Err(unexpected("GET /data/…", status, &problem)),
        }
    }

    async fn store(&self, token: &str, key: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.signed(token, Method::PUT, key, bytes).await.map(drop)
    }

    async fn fetch(&self, token: &str, key: &str) -> Result<Vec<u8>, Failure> {
        self.signed(token, Method::GET, key, &[]).await.map(Vec::from)
    }

    async fn discard(&self, token: &str, key: &str) -> Result<(), Failure> {
        self.signed(token, Method::DELETE, key, &[]).await.map(drop)
    }

    async fn delete(&self, token: &str, table: &str, id: &str) -> Result<(), Failure> {
        let path = format!("/data/{}/{}", path_segment(table), path_segment(id));
        self.expect(Method::DELETE, &path, Some(token), None).await.map(|_| ())
    }
}
