//! `tenantry doctor`: prints the health of the server's providers; exit code 1 if one is unhealthy.

use anyhow::Result;
use serde_json::Value;

use super::output::Column;
use super::{Exit, Session};

const PROVIDERS: [Column; 4] =
    [("PROVIDER", "/name"), ("KIND", "/kind"), ("HEALTHY", "/healthy"), ("REASON", "/message")];

pub async fn run(session: &Session) -> Result<()> {
    let answer = session.client()?.get("/v1/providers").await?;
    let all = answer.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
    session.output.list(&all, &PROVIDERS)?;
    match all.iter().filter(|provider| provider.get("healthy") != Some(&Value::Bool(true))).count() {
        0 => Ok(()),
        unhealthy => Err(Exit::Failure.with(format!("{unhealthy} of {} providers are unhealthy", all.len()))),
    }
}
