//! Onboards tenants: a few with live progress, and many with a `kill -9` of the server in the middle.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tenantry_control::view::OperationView;
use tenantry_engine::{OperationState, StepState};

use super::child::Child;
use crate::cli::{Board, Entry, ended};
use crate::client::Client;

/// Most requests at the same time.
const CONCURRENCY: usize = 8;
const LOCALES: [&str; 4] = ["en", "de", "it", "hr"];

/// Onboards these tenants with live progress. Returns the onboardings in the order of the entries.
pub async fn make(client: &Client, entries: Vec<Entry>) -> Result<Vec<OperationView>> {
    let board = Board::new(entries.len());
    let made = stream::iter(entries).map(|entry| onboard(client, &board, entry)).buffered(CONCURRENCY);
    let made: Vec<Result<OperationView>> = made.collect().await;
    board.clear();
    made.into_iter().collect()
}

async fn onboard(client: &Client, board: &Board, entry: Entry) -> Result<OperationView> {
    let (_, operation) = client.post_once("/v1/tenants", &entry.document, &entry.key()).await?;
    let begun: OperationView = serde_json::from_value(operation).context("an operation")?;
    let id = &begun.id.to_string();
    for step in begun.steps.iter().filter(|step| step.approval.is_some() && step.state == StepState::Waiting)
    {
        client.post(&format!("/v1/operations/{id}/approve"), Some(&json!({ "step": step.key }))).await?;
        eprintln!("  {:<20} approved: tenantry operation approve {id} --step {}", entry.name(), step.key);
    }
    follow(client, board, entry.name(), id).await
}

/// Waits until this operation has succeeded and shows its progress under the customer's name.
pub async fn follow(client: &Client, board: &Board, name: &str, id: &str) -> Result<OperationView> {
    let mut row = board.row(name);
    let view = client.follow(id, |view| row.show(view)).await?;
    row.end(&format!("  {name:<20} {}", ended(&view)));
    ensure!(view.state == OperationState::Succeeded, "{name}: operation {id} did not succeed");
    Ok(view)
}

/// Requests `count` tenants, kills the server once a third of the requests have a response, restarts it, and
/// repeats every request with its idempotency key. Returns the new server.
pub async fn kill_and_resume(server: Child, folder: &Path, count: usize) -> Result<(Child, Client)> {
    let entries: Vec<Entry> = (1..=count).map(entry).collect();
    let client = server.client()?;
    let (answered, killed_at) = {
        let enough = count.div_ceil(3);
        let mut answers =
            stream::iter(&entries).map(|entry| create(&client, entry)).buffer_unordered(CONCURRENCY);
        let mut answered = 0;
        while answered < enough {
            answers.next().await.context("the server returned no responses")??;
            answered += 1;
        }
        // Requests that are in flight get no response.
        let pid = server.pid();
        server.kill()?;
        eprintln!("  {count} requests, {answered} responses: kill -9 {pid}");
        (answered, tenantry_model::Timestamp::now())
    };
    let server = Child::start(folder).await?;
    eprintln!("  restarted on the same data folder: {}", server.url());
    let client = server.client()?;
    let answers: Vec<Result<Value>> =
        stream::iter(&entries).map(|entry| create(&client, entry)).buffered(CONCURRENCY).collect().await;
    let ids: Vec<String> = answers
        .into_iter()
        .map(|answer| answer?.get("id").and_then(Value::as_str).map(str::to_owned).context("no operation id"))
        .collect::<Result<_>>()?;
    let views = stream::iter(&ids).map(|id| client.follow(id, |_| {})).buffered(CONCURRENCY);
    let views: Vec<OperationView> = views.collect::<Vec<_>>().await.into_iter().collect::<Result<_, _>>()?;
    let before: Vec<&OperationView> = views.iter().filter(|view| view.created_at < killed_at).collect();
    let resumed = before.iter().filter(|view| view.finished_at.is_some_and(|end| end > killed_at)).count();
    eprintln!(
        "  {} operations were in the registry at the kill ({answered} had a response); {resumed} were \
         interrupted and resumed",
        before.len(),
    );
    let succeeded = views.iter().filter(|view| view.state == OperationState::Succeeded).count();
    eprintln!("  requests repeated with the same idempotency keys: {succeeded} of {count} tenants onboarded");
    ensure!(succeeded == count, "{} of {count} tenants were not onboarded", count - succeeded);
    ensure!(before.len() >= answered, "a request that had a response was lost");
    Ok((server, client))
}

async fn create(client: &Client, entry: &Entry) -> Result<Value> {
    Ok(client.post_once("/v1/tenants", &entry.document, &entry.key()).await?.1)
}

fn entry(number: usize) -> Entry {
    let document = json!({
        "tenant_name": format!("Customer {number}"),
        "admin_user": { "email": format!("owner@customer-{number}.example") },
        "subscription": { "plan": "starter" },
        "locale": LOCALES.get(number % LOCALES.len()),
    });
    Entry { number, document }
}
