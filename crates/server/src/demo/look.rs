//! What a tenant has: its smoke test, what waits for its first administrator, its invoice.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tenantry_control::view::OperationView;
use tenantry_engine::StepState;

use crate::cli::length;
use crate::client::Client;

/// Shows that an onboarding passed its smoke test.
pub async fn smoke_test(client: &Client, onboarding: &OperationView) -> Result<()> {
    let tenant = client.get(&format!("/v1/tenants/{}", onboarding.tenant_id)).await?;
    let step = onboarding.steps.iter().find(|step| step.kind == "smoke_test").context("no smoke test")?;
    ensure!(step.state == StepState::Done, "{} was not tested", onboarding.tenant_id);
    let took = step.started_at.zip(step.finished_at).map(|(start, end)| length(end.since(start)));
    let slug = tenant.get("slug").and_then(Value::as_str).unwrap_or_default();
    eprintln!("  {slug:<20} smoke test passed in {}", took.unwrap_or_default());
    Ok(())
}

/// Shows what an onboarding made, and takes the first administrator's way in, which is handed out once.
pub async fn inside(client: &Client, onboarding: &OperationView) -> Result<()> {
    let response = onboarding.response.as_ref().context("an onboarding without a response")?;
    for (key, resource) in &response.resources {
        eprintln!("  {key:<12} {} by {}", resource.name, resource.provider);
    }
    let path = format!("/v1/operations/{}/credentials", onboarding.id);
    let claimed = client.post(&path, None).await?;
    let invitation =
        claimed.pointer("/credentials/0/name").and_then(Value::as_str).context("no invitation")?;
    ensure!(client.post(&path, None).await.is_err(), "a secret was handed out twice");
    eprintln!("  {:<12} taken once, and not handed out again", invitation.replace('_', " "));
    invoice(client, onboarding).await
}

/// The first invoice, out of the detached billing step.
async fn invoice(client: &Client, onboarding: &OperationView) -> Result<()> {
    let step = onboarding.steps.iter().find(|step| step.kind == "billing").context("no billing")?;
    let billing = match step.operation_id {
        Some(child) => client.follow(&child.to_string(), |_| {}).await?,
        None => onboarding.clone(),
    };
    let response = billing.response.context("the billing is not done")?;
    let outputs = response.resources.values().find(|resource| resource.kind == "billing").map(|r| &r.outputs);
    let outputs = outputs.context("no invoice")?;
    let text = |field: &str| outputs.get(field).and_then(Value::as_str).unwrap_or_default();
    let amount = outputs.get("amount").and_then(Value::as_i64).unwrap_or_default();
    ensure!(!text("invoice_number").is_empty(), "no invoice number");
    eprintln!(
        "  {:<12} {}: {}.{:02} {}, {}",
        "invoice",
        text("invoice_number"),
        amount / 100,
        amount % 100,
        text("currency"),
        text("billing_cycle")
    );
    Ok(())
}
