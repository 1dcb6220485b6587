//! What operators do and look at: repairs, signals, labels, status, drift, isolation checks, events, templates.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Customer, STREAM};
use crate::client::{Ask, Refusal, text};
use crate::draw::Draw;
use crate::fleet::Tenant;

impl Customer {
    pub(super) async fn repair(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        let path = format!("/v1/tenants/{}/repair", tenant.id);
        Some(self.client.operation(Ask::post(path, json!({})).once(unique)).await.map(drop))
    }

    /// Sends a signal to one of the operations that run.
    pub(super) async fn signal(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let verb = draw.weighted(&[("pause", 3), ("resume", 4), ("retry", 3), ("cancel", 2)]);
        let state = if verb == "resume" { "paused" } else { "running" };
        let state = if verb == "retry" { "needs_attention" } else { state };
        let listed = self.client.send(Ask::get(format!("/v1/operations?state={state}&limit=20"))).await;
        let listed = match listed {
            Ok(listed) => listed["data"].as_array().cloned().unwrap_or_default(),
            Err(refusal) => return Some(Err(refusal)),
        };
        let id = text(&draw.one(&listed)?["id"]);
        let ask = Ask::post(format!("/v1/operations/{id}/{verb}"), json!({})).once(unique);
        Some(self.client.send(ask).await.map(drop))
    }

    pub(super) async fn label(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        let body = json!({ "labels": { "last": unique, "of": tenant.marker } }).to_string().into_bytes();
        let ask = Ask::bytes(Method::PATCH, format!("/v1/tenants/{}", tenant.id), body)
            .header("if-match", "*")
            .header("content-type", "application/merge-patch+json");
        Some(self.client.send(ask).await.map(drop))
    }

    pub(super) async fn status(&self, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        Some(self.client.send(Ask::get(format!("/v1/tenants/{}/status", tenant.id))).await.map(drop))
    }

    pub(super) async fn drift(&self) -> Result<(), Refusal> {
        self.client.send(Ask::get("/v1/drift?limit=20")).await.map(drop)
    }

    /// Checks the isolation between three tenants. A leak must not be found.
    pub(super) async fn isolation(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenants: Vec<Tenant> = (0..3).filter_map(|_| self.any(draw)).collect();
        let ids: Vec<&str> = tenants.iter().map(|tenant| tenant.id.as_str()).collect();
        let ask = Ask::post("/v1/isolation-checks", json!({ "tenants": ids })).once(unique);
        Some(match self.client.send(ask).await {
            Ok(report) => {
                if find(&report, "leaks").and_then(Value::as_u64).is_some_and(|leaks| leaks > 0) {
                    self.tally.surprise(format!("the isolation check found leaks: {report}"));
                }
                Ok(())
            }
            Err(refusal) => Err(refusal),
        })
    }

    /// Follows the events for a while; their numbers have no gaps.
    pub(super) async fn events(&self, draw: &mut Draw) -> Result<(), Refusal> {
        let after = draw.weighted(&[("0", 1), ("20", 1), ("100", 1)]);
        let ask = Ask::get("/v1/events").header("accept", "text/event-stream").header("last-event-id", after);
        let Ok(mut response) = self.client.request(&ask).send().await else {
            return Err(Refusal::of("no answer"));
        };
        if !response.status().is_success() {
            return Err(Refusal { code: format!("{}", response.status().as_u16()) });
        }
        let mut read = Vec::new();
        let reading = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                read.extend_from_slice(&chunk);
            }
        };
        // The stream has no end of its own.
        let _ = tokio::time::timeout(STREAM, reading).await;
        let ids: Vec<i64> = String::from_utf8_lossy(&read)
            .lines()
            .filter_map(|line| line.strip_prefix("id:")?.trim().parse().ok())
            .collect();
        if ids.windows(2).any(|pair| pair[1] != pair[0] + 1) {
            self.tally.surprise(format!("an event stream has a gap: {ids:?}"));
        }
        Ok(())
    }

    /// Reads templates and plans, and requests a tenant without creating it.
    pub(super) async fn templates(&self) -> Result<(), Refusal> {
        for path in ["/v1/templates", "/v1/templates/enterprise", "/v1/plans", "/v1/stats", "/v1/system"] {
            self.client.send(Ask::get(path)).await?;
        }
        let body = json!({
            "tenant_name": "Dry run", "admin_user": { "email": "dry@chaos.example" },
            "subscription": { "plan": "growth" },
        });
        self.client.send(Ask::post("/v1/tenants?dry_run=true", body)).await.map(drop)
    }
}

/// The first value of this key anywhere in a document.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|value| find(value, key))),
        Value::Array(values) => values.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}
