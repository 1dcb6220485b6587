//! The bench `export`: speed and memory of an export, which verifies, encrypts and commits its archive,
//! beside `tar | zstd` of the file with the rows, which does neither.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::client::{Connection as Client, Wait};
use crate::process;
use crate::report::{self, at_least, at_most};
use crate::sandbox::Sandbox;
use crate::server::Server;

/// Rows per megabyte of the file. A title has 400 characters, which compress to about half.
const ROWS: usize = 1_500;
/// Highest growth of memory during an export, in megabytes.
const MEMORY: f64 = 100.0;
/// Lowest speed of an export, as a share of `tar | zstd`.
const SHARE: f64 = 0.5;
/// Polling interval of the operation.
const PAUSE: Duration = Duration::from_millis(10);

/// Measures and prints it, with this number of megabytes of rows.
pub async fn measure(megabytes: usize) -> Result<()> {
    report::section(&format!("Export of a tenant with {megabytes} MB in the SQLite pool"));
    let sandbox = Sandbox::create(None).await?;
    let server = Server::start(&sandbox).await?;
    let mut client = server.connect(1).await?.pop().context("a connection")?;
    client.onboard("Big", "starter", Wait::Active).await?;
    server.drain().await?;
    let file = sandbox.file("tenants");
    fill(&file, megabytes * ROWS).await?;
    // Reads the file into the page cache.
    let bytes = std::fs::read(&file)?.len() as f64;

    let before = process::resident(server.pid())?;
    let started = Instant::now();
    let (archive, most) = export(&mut client, server.pid()).await?;
    let took = started.elapsed().as_secs_f64();
    let rate = |seconds: f64| bytes / 1e6 / seconds;
    let size = archive["size"].as_f64().unwrap_or_default();
    let remark = format!("{:.0} MB of {:.0} MB in {took:.1} s", size / 1e6, bytes / 1e6);
    report::line("export", &format!("{:.0} MB/s", rate(took)), &remark);
    let grown = most.saturating_sub(before) as f64 / 1e6;
    report::line("memory during the export", &format!("+{grown:.0} MB"), &at_most(grown, MEMORY, " MB"));
    match bare(&file)? {
        Some(bare) => {
            let share = rate(took) / rate(bare);
            let remark = format!("the export has {share:.2} of it, {}", at_least(share, SHARE, ""));
            report::line("tar | zstd of the same file", &format!("{:.0} MB/s", rate(bare)), &remark);
        }
        None => report::skipped("tar | zstd of the same file", "tar or zstd is not installed"),
    }
    server.stop().await?;
    sandbox.remove().await
}

async fn fill(file: &Path, rows: usize) -> Result<()> {
    let mut connection = SqliteConnectOptions::new().filename(file).connect().await?;
    let tenant: String = sqlx::query_scalar("SELECT tenant_id FROM _tenants WHERE claim <> 'canary'")
        .fetch_one(&mut connection)
        .await?;
    for sql in [
        "INSERT INTO projects (tenant_id, id, name) VALUES (?1, 'bench', ?2)",
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?2)
         INSERT INTO tasks (tenant_id, id, project_id, title)
         SELECT ?1, 'bench ' || n, 'bench', hex(randomblob(200)) FROM n",
    ] {
        let rows = i64::try_from(rows)?;
        sqlx::query(sql).bind(&tenant).bind(rows).execute(&mut connection).await?;
    }
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// Makes an export; returns the archive and the highest memory of the server during it.
async fn export(client: &mut Client, pid: u32) -> Result<(Value, u64)> {
    let begun = client.post("/v1/tenants/big/exports", &json!({})).await?;
    let path = format!("/v1/operations/{}", begun["id"].as_str().context("an operation without an id")?);
    let mut most = 0;
    loop {
        most = most.max(process::resident(pid)?);
        let (_, text) = client.get(&path).await?;
        let mut operation: Value = serde_json::from_str(&text)?;
        match operation["state"].as_str() {
            Some("succeeded") => return Ok((operation["response"]["archives"]["export"].take(), most)),
            Some("running") => tokio::time::sleep(PAUSE).await,
            other => bail!("the export is {other:?}: {text}"),
        }
    }
}

/// Seconds of `tar | zstd`; none when one of them is not installed.
fn bare(file: &Path) -> Result<Option<f64>> {
    let pipe = "set -o pipefail; tar -cf - \"$0\" | zstd -q -3 -T1 -o \"$0.tar.zst\" && sync \"$0.tar.zst\"";
    let installed =
        |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !installed("tar") || !installed("zstd") {
        return Ok(None);
    }
    let started = Instant::now();
    let ended = Command::new("bash").args(["-c", pipe]).arg(file).stderr(Stdio::null()).status()?;
    ensure!(ended.success(), "tar | zstd failed");
    Ok(Some(started.elapsed().as_secs_f64()))
}
