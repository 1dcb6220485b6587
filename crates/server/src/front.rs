//! The smoke test's way in (S0.37): the public endpoints as a tenant's client meets them, without a network. Each call
//! goes through the same router, the same checks and the same handlers as one from outside.

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tenantry_control::Front;
use tenantry_model::Failure;
use tower::ServiceExt;

use crate::client::part;

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Calls the router in this process.
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
        let (status, bytes) = self.send(request.body(body).map_err(broken)?).await?;
        if bytes.is_empty() {
            return Ok((status, Value::Null));
        }
        Ok((status, serde_json::from_slice(&bytes).map_err(broken)?))
    }

    async fn send(&self, request: Request<Body>) -> Result<(StatusCode, Bytes), Failure> {
        let Ok(response) = self.0.clone().oneshot(request).await;
        let status = response.status();
        Ok((status, to_bytes(response.into_body(), MAX_ANSWER).await.map_err(broken)?))
    }

    /// What an address that the token signs answers.
    async fn signed(&self, token: &str, method: Method, key: &str, bytes: &[u8]) -> Result<Bytes, Failure> {
        let wish = json!({ "key": key, "method": method.as_str(), "expires_in": 60 });
        let signed = self.expect(Method::POST, "/objects/urls", Some(token), Some(&wish)).await?;
        let url = signed.get("url").and_then(Value::as_str).unwrap_or_default();
        // Past the public address: the call stays in this process.
        let path = url.find("/files/").and_then(|at| url.get(at..)).unwrap_or_default();
        let said = format!("{method} /files/…");
        let request = Request::builder().method(method).uri(path).body(Body::from(bytes.to_vec()));
        match self.send(request.map_err(broken)?).await? {
            (status, bytes) if status.is_success() => Ok(bytes),
            (status, bytes) => {
                Err(refused(&said, status, &serde_json::from_slice(&bytes).unwrap_or_default()))
            }
        }
    }

    /// The answer, if it is a success.
    async fn expect(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let said = format!("{method} {}", path.split('/').take(3).collect::<Vec<_>>().join("/"));
        match self.call(method, path, token, body).await? {
            (status, value) if status.is_success() => Ok(value),
            (status, problem) => Err(refused(&said, status, &problem)),
        }
    }
}

fn broken(why: impl std::fmt::Display) -> Failure {
    Failure::retryable("smoke_test_failed", why)
}

/// The failure that an unexpected answer is. A problem's detail may name things of the tenant's; its code does not.
fn refused(said: &str, status: StatusCode, problem: &Value) -> Failure {
    let code = problem.get("code").and_then(Value::as_str).unwrap_or("no problem document");
    Failure::retryable("smoke_test_failed", format!("{said} was answered by {} ({code})", status.as_u16()))
}

#[async_trait]
impl Front for InProcess {
    async fn sign_in(&self, code: &str) -> Result<String, Failure> {
        let grant = json!({ "grant_type": "code", "code": code });
        let token = self.expect(Method::POST, "/auth/token", None, Some(&grant)).await?;
        let token = token.get("access_token").and_then(Value::as_str);
        token
            .map(str::to_owned)
            .ok_or_else(|| Failure::retryable("smoke_test_failed", "the sign-in gave no token"))
    }

    async fn me(&self, token: &str) -> Result<Value, Failure> {
        self.expect(Method::GET, "/data/me", Some(token), None).await
    }

    async fn insert(&self, token: &str, table: &str, row: &Value) -> Result<Value, Failure> {
        self.expect(Method::POST, &format!("/data/{}", part(table)), Some(token), Some(row)).await
    }

    async fn get(&self, token: &str, table: &str, id: &str) -> Result<Option<Value>, Failure> {
        let path = format!("/data/{}/{}", part(table), part(id));
        match self.call(Method::GET, &path, Some(token), None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, value) if status.is_success() => Ok(Some(value)),
            (status, problem) => Err(refused("GET /data/…", status, &problem)),
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
        let path = format!("/data/{}/{}", part(table), part(id));
        self.expect(Method::DELETE, &path, Some(token), None).await.map(|_| ())
    }
}
