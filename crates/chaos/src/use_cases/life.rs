//! The life of tenants: onboarding, cloning, offboarding and reconsidering, erasing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Customer;
use crate::client::{Ask, Refusal, text};
use crate::draw::Draw;
use crate::fleet::Tenant;

/// Columns with the word of a tenant, and those that refer to them.
const MASKED: [(&str, &str); 5] = [
    ("workspaces", "name"),
    ("projects", "id"),
    ("projects", "name"),
    ("projects", "description"),
    ("tasks", "project_id"),
];
/// Time in which an offboarding without a hold deletes a tenant.
const DELETION: Duration = Duration::from_secs(60);

impl Customer {
    /// Onboards a tenant of a drawn plan; every third is one of the calm neighbours.
    pub(super) async fn onboard(&self, unique: &str, draw: &mut Draw) -> Result<(), Refusal> {
        let plan = draw.weighted(&[("starter", 5), ("growth", 3), ("enterprise", 2)]);
        self.onboard_with(unique, plan, draw.percent(33)).await
    }

    /// Onboards a tenant of this plan, takes its credentials and signs in.
    pub async fn onboard_with(&self, marker: &str, plan: &'static str, calm: bool) -> Result<(), Refusal> {
        self.fleet.add(Tenant { marker: marker.to_owned(), plan, calm, ..Tenant::default() });
        let body = json!({
            "tenant_name": format!("Firm {marker}"),
            "admin_user": { "email": format!("{marker}@chaos.example"), "first_name": marker },
            "subscription": { "plan": plan },
        });
        let operation = self.client.operation(Ask::post("/v1/tenants", body).once(marker)).await?;
        self.take_over(marker, &operation).await
    }

    /// Keeps the id of a new tenant, its credentials and a token.
    async fn take_over(&self, marker: &str, operation: &Value) -> Result<(), Refusal> {
        self.fleet.change(marker, |tenant| tenant.id = text(&operation["tenant_id"]));
        let path = format!("/v1/operations/{}/credentials", text(&operation["id"]));
        let claimed = self.client.send(Ask::post(path, json!({}))).await?;
        let credentials = claimed["credentials"].as_array().cloned().unwrap_or_default();
        let outputs = operation["response"]["resources"]["database"]["outputs"].clone();
        self.keep_login(marker, &outputs, &credentials);
        let invitation = credentials.iter().find(|one| !text(&one["name"]).starts_with("postgres_password:"));
        match invitation {
            Some(invitation) => self.sign_in(marker, &text(&invitation["value"])).await.map(drop),
            None => Ok(()),
        }
    }

    /// Keeps the URL of the tenant's database login.
    pub(super) fn keep_login(&self, marker: &str, outputs: &Value, credentials: &[Value]) {
        let role = text(&outputs["role"]);
        let name = format!("postgres_password:{role}");
        let Some(password) = credentials.iter().find(|one| one["name"] == *name) else { return };
        let (password, database) = (text(&password["value"]), text(&outputs["database"]));
        let login = format!("{role}:{password}@SERVER/{database}");
        self.fleet.change(marker, |tenant| tenant.login = Some(login));
    }

    /// Retries an onboarding that was rolled back; for most tenants there is none.
    pub(super) async fn provision(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        let path = format!("/v1/tenants/{}/provision", tenant.id);
        Some(self.client.operation(Ask::post(path, json!({})).once(unique)).await.map(drop))
    }

    /// Clones a tenant with all columns masked that name it.
    pub(super) async fn clone_tenant(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        self.fleet.add(Tenant { marker: unique.to_owned(), plan: tenant.plan, ..Tenant::default() });
        let masks = MASKED.map(|(table, column)| json!({ "table": table, "column": column, "mask": "hash" }));
        let body = json!({
            "slug": unique, "tenant_name": format!("Sandbox {unique}"), "masks": masks,
            "admin_user": { "email": format!("{unique}@chaos.example") },
        });
        let path = format!("/v1/tenants/{}/clones", tenant.id);
        let done = self.client.operation(Ask::post(path, body).once(unique)).await;
        Some(match done {
            Ok(operation) => self.take_over(unique, &operation).await,
            Err(refusal) => Err(refusal),
        })
    }

    /// Offboards a tenant and either reconsiders or ends the hold.
    pub(super) async fn offboard(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.loose(draw)?;
        let (held, back, pause) = (draw.percent(70), draw.percent(60), draw.millis(0..3_000));
        Some(self.leave(&tenant, unique, held, back, pause).await)
    }

    async fn leave(
        &self,
        tenant: &Tenant,
        unique: &str,
        held: bool,
        back: bool,
        pause: Duration,
    ) -> Result<(), Refusal> {
        let path = |verb: &str| format!("/v1/tenants/{}/{verb}", tenant.id);
        let body = json!({ "reason": "contract", "hold_days": if held { 30 } else { 0 } });
        let begun = self.client.send(Ask::post(path("offboard"), body).once(unique)).await?;
        tokio::time::sleep(pause).await;
        if held && back {
            let once = format!("{unique} back");
            return self.client.send(Ask::post(path("reconsider"), json!({})).once(once)).await.map(drop);
        }
        if held {
            let skip = format!("/v1/operations/{}/skip", text(&begun["id"]));
            let body = json!({ "step": "hold", "reason": "agreed" });
            self.client.send(Ask::post(skip, body).once(format!("{unique} skip"))).await?;
        }
        let started = Instant::now();
        while started.elapsed() < DELETION && !self.client.stopped() {
            let now = self.client.send(Ask::get(format!("/v1/tenants/{}", tenant.id))).await?;
            if now["status"] == "deprovisioned" {
                self.fleet.change(&tenant.marker, |tenant| tenant.gone = true);
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Err(Refusal::of("not followed to its end"))
    }

    /// Erases a tenant and gets its certificate.
    pub(super) async fn erase(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.loose(draw)?;
        Some(self.erase_one(&tenant, unique).await)
    }

    async fn erase_one(&self, tenant: &Tenant, unique: &str) -> Result<(), Refusal> {
        let path = format!("/v1/tenants/{}/erase", tenant.id);
        self.client.operation(Ask::post(path, json!({ "reason": "request" })).once(unique)).await?;
        self.fleet.change(&tenant.marker, |tenant| tenant.gone = true);
        let proof = self.client.send(Ask::get(format!("/v1/tenants/{}/certificate", tenant.id))).await?;
        match proof["certificate"]["tenant_id"] == *tenant.id {
            true => Ok(()),
            false => Err(Refusal::of("a certificate of another tenant")),
        }
    }
}
