//! Section 4: cost of many operations that wait for an approval: memory, queries and CPU time when idle, and
//! the time of a restart.

use std::time::Duration;

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection};

use crate::client::{self, Until, Wait};
use crate::process;
use crate::report::{self, at_most, whole};
use crate::sandbox::{Postgres, Sandbox};
use crate::server::Server;
use crate::throughput::IN_FLIGHT;

/// The plan whose template begins with an approval.
const PLAN: &str = "gated";
/// Aims: growth of memory in bytes, and seconds until ready.
const GROWTH: f64 = 20e6;
const RESTART: f64 = 1.0;
/// Idle time before a measurement. PostgreSQL's statistics are up to ten seconds late.
const SETTLE_POSTGRES: Duration = Duration::from_secs(12);
const SETTLE_SQLITE: Duration = Duration::from_secs(2);
/// Duration of a measurement.
const WATCH: Duration = Duration::from_secs(5);

/// Measures one store and prints it.
pub async fn measure(postgres: Option<&Postgres>, waiting: usize) -> Result<()> {
    let store = if postgres.is_some() { "PostgreSQL" } else { "SQLite" };
    report::section(&format!("4. {} waiting operations on {store}", whole(waiting as f64)));
    let sandbox = Sandbox::create(postgres).await?;
    // The first start creates the tables, so it is not compared.
    Server::start(&sandbox).await?.stop().await?;
    let server = Server::start(&sandbox).await?;
    tokio::time::sleep(SETTLE_SQLITE).await;
    let (bare, bare_start) = (process::resident(server.pid())?, server.started_in);
    let connections = server.connect(IN_FLIGHT).await?;
    let until = Until { count: waiting, within: Duration::MAX };
    let run = client::onboard(connections, "Waiting", PLAN, until, Wait::Committed).await?;
    server.drain().await?;
    let grown = process::resident(server.pid())?;
    server.stop().await?;

    let server = Server::start(&sandbox).await?;
    tokio::time::sleep(if postgres.is_some() { SETTLE_POSTGRES } else { SETTLE_SQLITE }).await;
    let (queries, cpu) = (queries(&sandbox).await?, process::cpu(server.pid())?);
    tokio::time::sleep(WATCH).await;
    let (later, later_cpu) = (self::queries(&sandbox).await?, process::cpu(server.pid())?);
    let resident = process::resident(server.pid())?;
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let growth = resident.saturating_sub(bare);
    report::line(
        "memory, against the same server without them",
        &format!("+{}", megabytes(growth)),
        &format!(
            "{}; {} without, {} with, {} before the restart",
            at_most(growth as f64 / 1e6, GROWTH / 1e6, " MB"),
            megabytes(bare),
            megabytes(resident),
            megabytes(grown)
        ),
    );
    let seconds = WATCH.as_secs();
    if let (Some(before), Some(after)) = (queries, later) {
        let made = after - before;
        // One per second is the heartbeat, one in ten seconds checks the notifier.
        let other = made.saturating_sub_unsigned(seconds + 2).max(0);
        report::line(
            &format!("transactions in {seconds} s when idle"),
            &made.to_string(),
            &format!("besides heartbeats {other}: {}", at_most(other as f64, 0.0, "")),
        );
    }
    let used = later_cpu.saturating_sub(cpu).as_millis();
    report::line(
        &format!("CPU time in {seconds} s when idle"),
        &format!("{used} ms"),
        &at_most(used as f64, 0.0, " ms"),
    );
    let start = server.started_in.as_secs_f64();
    report::line(
        "from the start of the process to ready",
        &format!("{start:.2} s"),
        &format!("{}; {:.2} s without", at_most(start, RESTART, " s"), bare_start.as_secs_f64()),
    );
    report::note(&format!("committed at {}/s", whole(waiting as f64 / run.took.as_secs_f64())));
    server.stop().await?;
    sandbox.remove().await
}

/// Transactions on the sandbox's databases so far; none on SQLite.
async fn queries(sandbox: &Sandbox) -> Result<Option<i64>> {
    let (Some(server), Some([registry, keyring])) = (sandbox.postgres(), sandbox.databases()) else {
        return Ok(None);
    };
    // From another database, so that this query does not count.
    let mut connection = server.open_own().await?;
    let query = format!(
        "SELECT sum(xact_commit + xact_rollback)::bigint FROM pg_stat_database
         WHERE datname IN ('{registry}', '{keyring}')"
    );
    let count = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(Some(count))
}
