//! A client that keeps retrying while the server is killed, restarted or moved: it repeats requests that got
//! no response, with the same idempotency key.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::server::{PATIENCE, Server, request};

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// A retrying client and the present URL and key of the server.
pub struct RetryingClient {
    http: Client,
    at: Mutex<(String, String)>,
}

impl RetryingClient {
    pub fn new(server: &Server) -> Self {
        let http = Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        Self { http, at: Mutex::new((server.url.clone(), server.key.clone())) }
    }

    /// Sets the server's new URL and key.
    pub fn set_server(&self, server: &Server) {
        *self.at.lock() = (server.url.clone(), server.key.clone());
    }

    /// Sends a request until it succeeds; returns the body. Panics on any failure that is not retryable.
    pub async fn send(&self, method: Method, path: &str, once: Option<&str>, body: Option<&Value>) -> Value {
        let started = Instant::now();
        loop {
            let (url, key) = self.at.lock().clone();
            let mut request = self.http.request(method.clone(), format!("{url}{path}")).bearer_auth(&key);
            if let Some(once) = once {
                request = request.header("idempotency-key", once);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Ok(answer) = request.send().await {
                let status = answer.status().as_u16();
                match answer.json::<Value>().await {
                    Ok(body) if (200..300).contains(&status) => return body,
                    // It is shutting down or overloaded; or another test's server uses the port of a killed
                    // one.
                    Ok(body) => assert!([401, 503].contains(&status), "{method} {path}: {status} {body:#}"),
                    Err(_) => {}
                }
            }
            assert!(started.elapsed() < PATIENCE * 2, "{method} {path} gets no response");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Creates a tenant and approves its waiting steps; returns the operation's id.
    pub async fn create_tenant(&self, name: &str, plan: &str) -> String {
        let operation = self.send(Method::POST, "/v1/tenants", Some(name), Some(&request(name, plan))).await;
        let id = operation["id"].as_str().expect("an id").to_owned();
        let steps = operation["steps"].as_array().expect("a list").iter();
        for step in steps.filter(|step| step["approval"].is_object()) {
            let (path, once) = (format!("/v1/operations/{id}/approve"), format!("approve {name}"));
            self.send(Method::POST, &path, Some(&once), Some(&json!({ "step": step["key"] }))).await;
        }
        id
    }

    /// Waits until an operation is done, or it or one of its children needs attention; returns it.
    pub async fn settled(&self, id: &str) -> Value {
        let started = Instant::now();
        loop {
            let operation = self.send(Method::GET, &format!("/v1/operations/{id}"), None, None).await;
            if operation["done"] == true || operation["state"] == "needs_attention" {
                return operation;
            }
            let steps = operation["steps"].as_array().expect("a list").iter();
            for child in steps.filter_map(|step| step["operation_id"].as_str()) {
                let child = self.send(Method::GET, &format!("/v1/operations/{child}"), None, None).await;
                if child["state"] == "needs_attention" {
                    return operation;
                }
            }
            assert!(started.elapsed() < PATIENCE * 2, "the operation does not finish: {operation:#}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
