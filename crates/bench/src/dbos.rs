//! Section 6: dbos, a durable engine in Python, on the same PostgreSQL, with workflows of eight empty steps.
//! For comparison: an onboarding has seven steps and two child operations of one step, which do real work.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::report::{self, Cpu, milliseconds, per_second};
use crate::sandbox::Postgres;
use crate::statistics::Spread;
use crate::throughput::{Effort, IN_FLIGHT};

/// Environment variable with the path of a Python that has dbos and psycopg.
pub const PYTHON: &str = "TENANTRY_BENCH_DBOS_PYTHON";
const SCRIPT: &str = include_str!("../files/dbos_onboard.py");
/// Workflows per second of a run: the script counts workflows, not time.
const PER_SECOND: u64 = 64;
/// Divisor of the number of single workflows, because dbos is slower.
const SHARE: usize = 8;

/// Measures it and prints it.
pub async fn measure(postgres: &Postgres, effort: Effort) -> Result<()> {
    report::section("6. dbos on the same PostgreSQL: workflows of 8 empty steps");
    let Some(python) = std::env::var_os(PYTHON) else {
        report::skipped("workflows", &format!("{PYTHON} names no Python with dbos and psycopg"));
        return Ok(());
    };
    let name = format!("tenantry_bench_dbos_{}", std::process::id());
    postgres.administer(&[format!("CREATE DATABASE \"{name}\"")]).await?;
    let count = (PER_SECOND * effort.run.as_secs()).max(IN_FLIGHT as u64);
    let numbers = [IN_FLIGHT as u64, count, effort.runs as u64, effort.alone.div_ceil(SHARE) as u64];
    let numbers = numbers.map(|n| n.to_string());
    let before = Cpu::now(None, Some(postgres.postmaster));
    let output = Command::new(python)
        .args(["-c", SCRIPT, &postgres.database_url(&name)])
        .args(numbers)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run Python")?;
    let cpu = Cpu::now(None, Some(postgres.postmaster)).since(before);
    postgres.administer(&[format!("DROP DATABASE \"{name}\" WITH (FORCE)")]).await?;
    if !output.status.success() {
        bail!("dbos failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    let found: Value = serde_json::from_str(line).with_context(|| format!("dbos said: {line}"))?;
    let rates: Vec<f64> = found["rates"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    let alone = found["alone_p50_ms"].as_f64().context("dbos measured no single workflow")?;
    report::line(
        &format!("workflows, {IN_FLIGHT} in flight"),
        &per_second(&Spread::of(&rates)),
        &format!("median of {} runs of {count}", effort.runs),
    );
    report::line("one at a time, p50", &milliseconds(alone), "");
    report::note(&format!(
        "CPU time per workflow, its start included: {}",
        cpu.each(count as usize * effort.runs)
    ));
    Ok(())
}
