//! Inspects a tenant: its smoke test, resources and invoice, and its rows as its first administrator reads
//! them.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tenantry_control::view::OperationView;
use tenantry_engine::StepState;

use super::child::Child;
use crate::cli::length;
use crate::client::{Client, ClientError};

/// Checks that the onboarding's smoke test passed, and prints its duration.
pub async fn smoke_test(client: &Client, onboarding: &OperationView) -> Result<()> {
    let tenant = client.get(&format!("/v1/tenants/{}", onboarding.tenant_id)).await?;
    let step = onboarding.steps.iter().find(|step| step.kind == "smoke_test");
    let step = step.context("the onboarding has no smoke test")?;
    ensure!(step.state == StepState::Done, "the smoke test of {} did not pass", onboarding.tenant_id);
    let took = step.started_at.zip(step.finished_at).map(|(start, end)| length(end.since(start)));
    let slug = tenant.get("slug").and_then(Value::as_str).unwrap_or_default();
    eprintln!("  {slug:<20} smoke test passed in {}", took.unwrap_or_default());
    Ok(())
}

/// Prints the onboarding's resources, signs in by its invitation, and checks that another tenant cannot read
/// its rows.
pub async fn tenant(server: &Child, onboarding: &OperationView, other: &OperationView) -> Result<()> {
    let client = server.client()?;
    let response = onboarding.response.as_ref().context("the onboarding has no response")?;
    for (key, resource) in &response.resources {
        line(key, &format!("{} ({})", resource.name, resource.provider));
    }
    invoice(&client, onboarding).await?;
    let own = sign_in(server, onboarding).await?;
    let me = own.get("/data/me").await?;
    line("invitation", "revealed once, accepted once");
    line("signed in", me.get("role").and_then(Value::as_str).unwrap_or_default());
    let stranger = sign_in(server, other).await?;
    for (table, name) in [("projects", "name"), ("tasks", "title")] {
        rows(&own, &stranger, table, name).await?;
    }
    isolation(&own, &stranger).await
}

/// Claims the first administrator's invitation and exchanges it for a token. Returns a client with that
/// token.
pub async fn sign_in(server: &Child, onboarding: &OperationView) -> Result<Client> {
    let client = server.client()?;
    let path = format!("/v1/operations/{}/credentials", onboarding.id);
    let claimed = client.post(&path, None).await?;
    let invitation = claimed.pointer("/credentials/0/value").and_then(Value::as_str);
    let invitation = invitation.context("the onboarding has no invitation")?;
    ensure!(client.post(&path, None).await.is_err(), "the server revealed a secret twice");
    let grant = json!({ "grant_type": "invitation", "token": invitation });
    let token = client.post("/auth/token", Some(&grant)).await?;
    let token = token.get("access_token").and_then(Value::as_str).context("the sign-in returned no token")?;
    ensure!(
        has_status(client.post("/auth/token", Some(&grant)).await, 401),
        "an invitation was accepted twice"
    );
    Client::new(server.url(), token.to_owned())
}

/// Prints the tenant's rows of a table, and checks that the other tenant cannot read them.
async fn rows(own: &Client, stranger: &Client, table: &str, name: &str) -> Result<()> {
    let path = format!("/data/{table}");
    let (seen, foreign) = (own.list(&path, usize::MAX).await?, stranger.list(&path, usize::MAX).await?);
    ensure!(!seen.is_empty(), "the table {table} is empty");
    ensure!(!foreign.iter().any(|row| seen.contains(row)), "another tenant's token sees these {table}");
    let names: Vec<&str> = seen.iter().filter_map(|row| row.get(name)?.as_str()).take(2).collect();
    let more = if seen.len() > names.len() { ", …" } else { "" };
    line(table, &format!("{}: {}{more}", seen.len(), names.join(", ")));
    Ok(())
}

/// Writes a row and checks that the other tenant cannot read it.
async fn isolation(own: &Client, stranger: &Client) -> Result<()> {
    let task = json!({ "project_id": "starter", "title": "Order flour for Saturday" });
    let task = own.post("/data/tasks", Some(&task)).await?;
    let id = task.get("id").and_then(Value::as_str).context("the row has no id")?;
    let path = format!("/data/tasks/{id}");
    ensure!(own.get(&path).await? == task, "the row that was read differs from the one that was written");
    ensure!(has_status(stranger.get(&path).await, 404), "another tenant's token reads the row");
    line("isolation", "another tenant's token reads none of these rows; a new task returns 404 to it");
    Ok(())
}

/// Whether the server returned a problem with this status.
pub fn has_status(result: Result<Value, ClientError>, expected: u16) -> bool {
    matches!(result, Err(ClientError::Problem { status, .. }) if status == expected)
}

/// Prints one line: a name and its value.
pub fn line(name: &str, text: &str) {
    eprintln!("  {name:<12} {text}");
}

/// Prints the first invoice, from the detached billing step.
async fn invoice(client: &Client, onboarding: &OperationView) -> Result<()> {
    let step = onboarding.steps.iter().find(|step| step.kind == "billing");
    let step = step.context("the onboarding has no billing step")?;
    let billing = match step.operation_id {
        Some(child) => client.follow(&child.to_string(), |_| {}).await?,
        None => onboarding.clone(),
    };
    let response = billing.response.context("the billing step is not done")?;
    let outputs = response.resources.values().find(|resource| resource.kind == "billing").map(|r| &r.outputs);
    let outputs = outputs.context("the billing step has no invoice")?;
    let text = |field: &str| outputs.get(field).and_then(Value::as_str).unwrap_or_default();
    let amount = outputs.get("amount").and_then(Value::as_i64).unwrap_or_default();
    ensure!(!text("invoice_number").is_empty(), "the invoice has no number");
    let price = format!("{}.{:02} {}", amount / 100, amount % 100, text("currency"));
    line("invoice", &format!("{}: {price}, {}", text("invoice_number"), text("billing_cycle")));
    Ok(())
}
