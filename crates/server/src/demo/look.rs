//! What a tenant has: its smoke test, its resources and invoice, and its rows as its first administrator sees them.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tenantry_control::view::OperationView;
use tenantry_engine::StepState;

use super::child::Child;
use crate::cli::length;
use crate::client::{Client, ClientError};

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

/// Shows what an onboarding made, and what its first administrator finds there, who comes in by the invitation.
pub async fn inside(server: &Child, onboarding: &OperationView, other: &OperationView) -> Result<()> {
    let client = server.client()?;
    let response = onboarding.response.as_ref().context("an onboarding without a response")?;
    for (key, resource) in &response.resources {
        line(key, &format!("{} by {}", resource.name, resource.provider));
    }
    invoice(&client, onboarding).await?;
    let own = come_in(server, onboarding).await?;
    let me = own.get("/data/me").await?;
    line("invitation", "handed out once, accepted once");
    line("signed in", me.get("role").and_then(Value::as_str).unwrap_or_default());
    let stranger = come_in(server, other).await?;
    for (table, name) in [("projects", "name"), ("tasks", "title")] {
        rows(&own, &stranger, table, name).await?;
    }
    isolation(&own, &stranger).await
}

/// A client with the token that the first administrator's invitation is worth.
pub async fn come_in(server: &Child, onboarding: &OperationView) -> Result<Client> {
    let client = server.client()?;
    let path = format!("/v1/operations/{}/credentials", onboarding.id);
    let claimed = client.post(&path, None).await?;
    let invitation = claimed.pointer("/credentials/0/value").and_then(Value::as_str);
    let invitation = invitation.context("no invitation")?;
    ensure!(client.post(&path, None).await.is_err(), "a secret was handed out twice");
    let grant = json!({ "grant_type": "invitation", "token": invitation });
    let token = client.post("/auth/token", Some(&grant)).await?;
    let token = token.get("access_token").and_then(Value::as_str).context("no token")?;
    ensure!(is_refused(client.post("/auth/token", Some(&grant)).await, 401), "an invitation worked twice");
    Client::new(server.url(), token.to_owned())
}

/// Shows the tenant's rows of a table, and that the other one has none of them.
async fn rows(own: &Client, stranger: &Client, table: &str, name: &str) -> Result<()> {
    let path = format!("/data/{table}");
    let (seen, foreign) = (own.list(&path, usize::MAX).await?, stranger.list(&path, usize::MAX).await?);
    ensure!(!seen.is_empty(), "there are no {table}");
    ensure!(!foreign.iter().any(|row| seen.contains(row)), "another tenant's token sees these {table}");
    let names: Vec<&str> = seen.iter().filter_map(|row| row.get(name)?.as_str()).take(2).collect();
    let more = if seen.len() > names.len() { ", …" } else { "" };
    line(table, &format!("{}: {}{more}", seen.len(), names.join(", ")));
    Ok(())
}

/// Shows that a row which the tenant writes is not there for the other one.
async fn isolation(own: &Client, stranger: &Client) -> Result<()> {
    let task = json!({ "project_id": "starter", "title": "Order flour for Saturday" });
    let task = own.post("/data/tasks", Some(&task)).await?;
    let id = task.get("id").and_then(Value::as_str).context("a row without an id")?;
    let path = format!("/data/tasks/{id}");
    ensure!(own.get(&path).await? == task, "the row that was written cannot be read");
    ensure!(is_refused(stranger.get(&path).await, 404), "another tenant's token sees the row");
    line("isolation", "another tenant's token sees none of these rows; a task written now is 404 for it");
    Ok(())
}

/// Whether an answer is a refusal with this status.
pub fn is_refused(answer: Result<Value, ClientError>, expected: u16) -> bool {
    matches!(answer, Err(ClientError::Refused { status, .. }) if status == expected)
}

/// A line of what was found.
pub fn line(name: &str, text: &str) {
    eprintln!("  {name:<12} {text}");
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
    let price = format!("{}.{:02} {}", amount / 100, amount % 100, text("currency"));
    line("invoice", &format!("{}: {price}, {}", text("invoice_number"), text("billing_cycle")));
    Ok(())
}
