//! Section 5: growth and enterprise tenants, one after the other. How long one takes and each of its steps, as the server's
//! own statistics tell, and which share of that time the critical path of the plan accounts for: the rest is waste. With
//! ready databases and without.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::client::Connection;
use crate::place::Place;
use crate::report::{self, at_least, milliseconds};
use crate::server::Server;
use crate::throughput::Effort;

/// The plans, and whether somebody has to agree to their tenants.
const PLANS: [(&str, bool); 2] = [("growth", false), ("enterprise", true)];
/// Least share of the time that the critical path should account for.
const SHARE: f64 = 0.8;
/// One in so many of the requests that starter tenants are measured with.
const FEWER: usize = 6;
/// Between two looks at an operation.
const PAUSE: Duration = Duration::from_millis(2);

/// Measures and prints it.
pub async fn measure(effort: Effort) -> Result<()> {
    let count = (effort.alone / FEWER).max(2);
    report::section(&format!(
        "5. Growth and enterprise tenants on SQLite: {count} of each, one after the other"
    ));
    for (warm, name) in [(0, "cold"), (count, "ready databases")] {
        let place = Place::make(None).await?;
        let server = Server::start_with(&place, &format!("[providers.sqlite_file]\nwarm = {warm}\n")).await?;
        let mut connection = server.connect(1).await?.pop().context("a connection")?;
        for (plan, approved) in PLANS {
            // Statements are prepared, and the pool is full.
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
        place.remove().await?;
    }
    Ok(())
}

/// Has a tenant made, agreeing to it at once, and waits until it is active.
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
        let side_by_side = template["overlap"].as_f64().unwrap_or_default();
        report::line(
            &format!("{plan}, {name}: p50"),
            &milliseconds(p50(&of)),
            &format!(
                "critical path {share:.2} of it, {}; {side_by_side:.1} steps side by side",
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
