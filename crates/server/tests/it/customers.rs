//! Customers of a server that dies and comes back: who gets no answer asks again, with the same key, wherever the
//! server is by then.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::server::{PATIENCE, Server, request};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Where the server is at the moment.
pub struct Door {
    http: Client,
    at: Mutex<(String, String)>,
}

impl Door {
    pub fn of(server: &Server) -> Self {
        let http = Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        Self { http, at: Mutex::new((server.url.clone(), server.key.clone())) }
    }

    /// It is somewhere else now.
    pub fn moved(&self, server: &Server) {
        *self.at.lock() = (server.url.clone(), server.key.clone());
    }

    /// Asks until there is an answer; gives its body. Anything but success or "try again" is a failure of the test.
    pub async fn ask(&self, method: Method, path: &str, once: Option<&str>, body: Option<&Value>) -> Value {
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
                    // It is ending or overloaded; or another test's server has got the port of one that died.
                    Ok(body) => assert!([401, 503].contains(&status), "{method} {path}: {status} {body:#}"),
                    Err(_) => {}
                }
            }
            assert!(started.elapsed() < PATIENCE * 2, "{method} {path} is never answered");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks for a tenant, and agrees to what waits for somebody; gives the operation.
    pub async fn sign_up(&self, name: &str, plan: &str) -> String {
        let operation = self.ask(Method::POST, "/v1/tenants", Some(name), Some(&request(name, plan))).await;
        let id = operation["id"].as_str().expect("an id").to_owned();
        let steps = operation["steps"].as_array().expect("a list").iter();
        for step in steps.filter(|step| step["approval"].is_object()) {
            let (path, once) = (format!("/v1/operations/{id}/approve"), format!("approve {name}"));
            self.ask(Method::POST, &path, Some(&once), Some(&json!({ "step": step["key"] }))).await;
        }
        id
    }

    /// Waits until an operation is done, or it or one that it waits for asks for a person; gives it.
    pub async fn rests(&self, id: &str) -> Value {
        let started = Instant::now();
        loop {
            let operation = self.ask(Method::GET, &format!("/v1/operations/{id}"), None, None).await;
            if operation["done"] == true || operation["state"] == "needs_attention" {
                return operation;
            }
            let steps = operation["steps"].as_array().expect("a list").iter();
            for child in steps.filter_map(|step| step["operation_id"].as_str()) {
                let child = self.ask(Method::GET, &format!("/v1/operations/{child}"), None, None).await;
                if child["state"] == "needs_attention" {
                    return operation;
                }
            }
            assert!(started.elapsed() < PATIENCE * 2, "it does not come to rest: {operation:#}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
