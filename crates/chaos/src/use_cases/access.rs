//! Who may do what: invitations, suspensions, credentials and API keys.

use serde_json::json;

use super::Customer;
use crate::client::{Ask, Refusal, text};
use crate::draw::Draw;
use crate::fleet::Tenant;

const REASONS: [(&str, u32); 4] = [("payment", 4), ("policy", 2), ("admin", 2), ("quota", 2)];
const MODES: [(&str, u32); 3] = [("read_only", 1), ("no_login", 1), ("blocked", 1)];

impl Customer {
    pub(super) async fn invite(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        Some(self.accept(&tenant, unique).await.map(drop))
    }

    pub(super) async fn suspend(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        let body = json!({ "reason": draw.weighted(&REASONS), "mode": draw.weighted(&MODES) });
        let path = format!("/v1/tenants/{}/suspend", tenant.id);
        Some(self.client.send(Ask::post(path, body).once(unique)).await.map(drop))
    }

    pub(super) async fn resume(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        let body = if draw.percent(40) { json!({ "reason": draw.weighted(&REASONS) }) } else { json!({}) };
        let path = format!("/v1/tenants/{}/resume", tenant.id);
        Some(self.client.send(Ask::post(path, body).once(unique)).await.map(drop))
    }

    pub(super) async fn rotate(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        let grace = if draw.percent(70) { 0 } else { 1 };
        Some(self.rotate_one(&tenant, unique, grace).await)
    }

    async fn rotate_one(&self, tenant: &Tenant, unique: &str, grace: u32) -> Result<(), Refusal> {
        let path = format!("/v1/tenants/{}/rotate-credentials", tenant.id);
        let body = json!({ "grace_hours": grace });
        let operation = self.client.operation(Ask::post(path, body).once(unique)).await?;
        let path = format!("/v1/operations/{}/credentials", text(&operation["id"]));
        let claimed = self.client.send(Ask::post(path, json!({}))).await?;
        let credentials = claimed["credentials"].as_array().cloned().unwrap_or_default();
        self.keep_login(
            &tenant.marker,
            &operation["response"]["resources"]["database"]["outputs"],
            &credentials,
        );
        Ok(())
    }

    /// Creates an API key, uses it, revokes it, and tries it once more.
    pub(super) async fn api_key(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        let own = draw.percent(50);
        Some(self.use_key(&tenant, unique, own).await)
    }

    async fn use_key(&self, tenant: &Tenant, unique: &str, own: bool) -> Result<(), Refusal> {
        let body = match own {
            true => json!({ "name": unique, "scopes": ["tenant"], "tenant": tenant.id }),
            false => json!({ "name": unique, "scopes": ["viewer"] }),
        };
        let made = self.client.send(Ask::post("/v1/keys", body).once(unique)).await?;
        let (id, secret) = (text(&made["id"]), text(&made["secret"]));
        let path = format!("/v1/tenants/{}", tenant.id);
        let used = match secret.is_empty() {
            true => Err(Refusal::of("the answer with the secret was lost")),
            false => self.client.send(Ask::get(&*path).with(&secret)).await.map(drop),
        };
        let revoke = Ask::post(format!("/v1/keys/{id}/revoke"), json!({})).once(format!("{unique} revoke"));
        match self.client.send(revoke).await {
            // Its tenant was erased in between.
            Err(refusal) if refusal.code == "not_found" => return used,
            revoked => drop(revoked?),
        }
        if !secret.is_empty() && self.client.send(Ask::get(path).with(&secret)).await.is_ok() {
            self.tally.surprise(format!("the API key {id} works after its revocation"));
        }
        used
    }
}
