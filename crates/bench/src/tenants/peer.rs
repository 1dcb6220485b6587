//! Comparison with django-tenants: schemas with the same files, one `RunSQL` migration each, on the same
//! server.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Amount, baseline};
use crate::report::{self, at_least};
use crate::sandbox::Postgres;

/// Environment variable with the path of a Python that has django-tenants and psycopg.
pub const PYTHON: &str = "TENANTRY_BENCH_DJANGO_PYTHON";
const SCRIPT: &str = include_str!("../../files/django_schemas.py");
/// Lowest ratio of the provider's rate to that of django-tenants.
const TIMES: f64 = 3.0;
/// Divisor of the number of schemas, because django-tenants is slower.
const SHARE: usize = 5;

/// Measures it and prints it; `product` is the provider's rate per second with one at a time.
pub async fn measure(server: &Postgres, amount: Amount, product: f64) -> Result<()> {
    report::section("django-tenants on the same PostgreSQL: the same tables in the same files");
    let Some(python) = std::env::var_os(PYTHON) else {
        report::skipped("schemas, 1 at a time", &format!("{PYTHON} names no Python with django-tenants"));
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
        .context("cannot run Python")?;
    server.administer(&[format!("DROP DATABASE \"{database}\" WITH (FORCE)")]).await?;
    if !output.status.success() {
        bail!("django-tenants failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    let found: Value = serde_json::from_str(line).with_context(|| format!("django-tenants said: {line}"))?;
    let rate = found["per_second"].as_f64().context("django-tenants measured nothing")?;
    let remark = format!(
        "the product is {:.1} times as fast; {}",
        product / rate,
        at_least(product / rate, TIMES, " times")
    );
    report::line("schemas, 1 at a time", &format!("{rate:.1}/s"), &remark);
    Ok(())
}
