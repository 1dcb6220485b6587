//! Section 5: onboardings of growth and enterprise tenants in sequence: duration of each and of its steps
//! from the server's statistics, and the share of the critical path in it. With and without warm databases.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::client::Connection;
use crate::report::{self, at_least, milliseconds};
use crate::sandbox::Sandbox;
use crate::server::Server;
use crate::throughput::Effort;

/// The plans, and whether their onboarding needs an approval.
const PLANS: [(&str, bool); 2] = [("growth", false), ("enterprise", true)];
/// Lowest share of the critical path in the duration.
const SHARE: f64 = 0.8;
/// Divisor of the number of requests of starter tenants.
const FEWER: usize = 6;
/// Polling interval of an operation.
const PAUSE: Duration = Duration::from_millis(2);

/// Measures and prints it.
pub async fn measure(effort: Effort) -> Result<()> {
    let count = (effort.alone / FEWER).max(2);
    report::section(&format!("5. Growth and enterprise tenants on SQLite: {count} of each, in sequence"));
    for (warm, name) in [(0, "cold"), (count, "warm databases")] {
        let sandbox = Sandbox::create(None).await?;
        let server =
            Server::start_with(&sandbox, &format!("[providers.sqlite_file]\nwarm = {warm}\n")).await?;
        let mut connection = server.connect(1).await?.pop().context("a connection")?;
        for (plan, approved) in PLANS {
            // Prepares the statements and fills the pool.
            onboard(&mut connection, &format!("Warm {plan}"), plan, approved).await?;
        }
        server.drain().await?;
        for (plan, approved) in PLANS {
            for n in 0..count {
                onboard(&mut connection, &format!("{plan} {n}"), plan, approved).await?;
            }
        }
        let (_, stats) = connection.get("/v1/stats").await?;
        show(&serde_json::from_str(&stats)?, name, warm == 0)?;
        server.stop().await?;
        sandbox.remove().await?;
    }
    Ok(())
}

/// Creates a tenant, approves it, and waits until it is active.
async fn onboard(connection: &mut Connection, name: &str, plan: &str, approved: bool) -> Result<()> {
    let document = json!({
        "tenant_name": name, "admin_user": { "email": "ada@bench.example" }, "subscription": { "plan": plan },
    });
    let begun = connection.post("/v1/tenants", &document).await?;
    let id = begun["id"].as_str().context("an operation without an id")?.to_owned();
    let path = format!("/v1/operations/{id}");
    if approved {
        connection.post(&format!("{path}/approve"), &json!({ "step": "approve" })).await?;
    }
    loop {
        let (_, text) = connection.get(&path).await?;
        let operation: Value = serde_json::from_str(&text)?;
        match operation["state"].as_str() {
            Some("succeeded") => return Ok(()),
            Some("running") => tokio::time::sleep(PAUSE).await,
            other => bail!("{name} is {other:?}: {text}"),
        }
    }
}

fn show(stats: &Value, name: &str, steps: bool) -> Result<()> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let p50 = |value: &Value| value["duration"]["p50_ms"].as_f64().unwrap_or_default();
    for (plan, _) in PLANS {
        let of =
            list(stats, "plans").into_iter().find(|one| one["plan"] == plan).context("the plan's figures")?;
        let template = list(stats, "templates").into_iter().find(|one| one["template"] == plan);
        let template = template.context("the template's figures")?;
        let share = template["critical_share"].as_f64().context("no critical path")?;
        let overlap = template["overlap"].as_f64().unwrap_or_default();
        report::line(
            &format!("{plan}, {name}: p50"),
            &milliseconds(p50(&of)),
            &format!(
                "critical path {share:.2} of it, {}; {overlap:.1} steps in parallel",
                at_least(share, SHARE, "")
            ),
        );
        let shown = list(&template, "steps");
        for step in shown.iter().filter(|step| steps && p50(step) >= 0.1) {
            let share = step["critical_share"].as_f64().unwrap_or_default();
            let key = step["step"].as_str().unwrap_or_default();
            let remark = format!("{share:.2} of the critical path's time");
            report::line(&format!("  {key}"), &milliseconds(p50(step)), &remark);
        }
        if !steps {
            let database = shown.iter().find(|step| step["step"] == "database").context("no database")?;
            report::line("  database", &milliseconds(p50(database)), "");
        }
    }
    Ok(())
}
