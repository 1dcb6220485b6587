//! The peer: django-tenants makes schemas with the same files, one `RunSQL` migration for each, on the same server.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Amount, baseline};
use crate::place::Postgres;
use crate::report::{self, at_least};

/// A python that has django-tenants and psycopg.
pub const PYTHON: &str = "TENANTRY_BENCH_DJANGO_PYTHON";
const SCRIPT: &str = include_str!("../../files/django_schemas.py");
/// How many times as fast as the peer a creation is to be.
const TIMES: f64 = 3.0;
/// It is slower: a part of the schemas says as much.
const SHARE: usize = 5;

/// Measures it and prints it; `ours` is what the provider makes per second, one at a time.
pub async fn measure(server: &Postgres, amount: Amount, ours: f64) -> Result<()> {
    report::section("django-tenants on the same PostgreSQL: the same tables in the same files");
    let Some(python) = std::env::var_os(PYTHON) else {
        report::skipped("schemas, 1 at a time", &format!("{PYTHON} names no python that has django-tenants"));
        return Ok(());
    };
    let database = format!("tenantry_bench_django_{}", std::process::id());
    server.administer(&[format!("CREATE DATABASE \"{database}\"")]).await?;
    let files: Vec<String> = baseline::files().into_iter().map(|(_, text)| text).collect();
    let count = (amount.schemas / SHARE).max(2);
    let output = Command::new(python)
        .args(["-c", SCRIPT, &server.database_url(&database), &count.to_string(), &json!(files).to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run the python")?;
    server.administer(&[format!("DROP DATABASE \"{database}\" WITH (FORCE)")]).await?;
    if !output.status.success() {
        bail!("django-tenants failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    let found: Value = serde_json::from_str(line).with_context(|| format!("django-tenants said: {line}"))?;
    let rate = found["per_second"].as_f64().context("django-tenants measured nothing")?;
    let remark =
        format!("ours is {:.1} times as fast; {}", ours / rate, at_least(ours / rate, TIMES, " times"));
    report::line("schemas, 1 at a time", &format!("{rate:.1}/s"), &remark);
    Ok(())
}
