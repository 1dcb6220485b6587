//! The SQLite pool under load: killed while it writes, without disk space, and with many callers.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tenantry_databases::sqlite_pool::{Config, DatabaseSqlitePool};
use tenantry_provider::Provider;
use tenantry_testkit::children;

use crate::world::{World, spec};

/// Rows of a tenant's seed in all tables.
const SEEDED: i64 = 11;
/// Concurrent callers.
const CALLERS: usize = 64;

async fn pool(folder: &Path) -> DatabaseSqlitePool {
    DatabaseSqlitePool::new(Config::new(folder.join("pool.db"))).await.unwrap()
}

/// Creates tenants with many callers until `more` returns false; calls `done` for each one.
async fn make(
    pool: DatabaseSqlitePool,
    more: impl Fn() -> bool + Clone + Send + 'static,
    done: impl Fn(Result<String, tenantry_model::Failure>) + Clone + Send + 'static,
) {
    let world = Arc::new(World::default());
    let callers = (0..CALLERS).map(|_| {
        let (pool, world, more, done) = (pool.clone(), world.clone(), more.clone(), done.clone());
        tokio::spawn(async move {
            while more() {
                let spec = spec(json!({ "seed": "defaults" }));
                let made = pool.ensure(&world.context(), &spec).await;
                let failed = made.is_err();
                done(made.map(|_| spec.tenant.id.to_string()));
                if failed {
                    return;
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

async fn open(folder: &Path) -> SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new().filename(folder.join("pool.db")).connect().await.unwrap()
}

/// The complete tenants. Checks that no other rows exist.
async fn whole_tenants(folder: &Path) -> BTreeSet<String> {
    let mut connection = open(folder).await;
    let damage: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut connection).await.unwrap();
    assert_eq!(damage, ["ok"]);
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT tenant_id, count(*) FROM (
           SELECT tenant_id FROM workspaces UNION ALL SELECT tenant_id FROM categories
           UNION ALL SELECT tenant_id FROM notification_settings
           UNION ALL SELECT tenant_id FROM projects UNION ALL SELECT tenant_id FROM tasks)
         GROUP BY tenant_id",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let owners: BTreeSet<String> = sqlx::query_scalar(
        "SELECT tenant_id FROM _tenants WHERE completed IS NOT NULL AND claim <> 'canary'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap()
    .into_iter()
    .collect();
    connection.close().await.unwrap();
    let whole: BTreeSet<String> =
        rows.iter().filter(|(_, count)| *count == SEEDED).map(|(id, _)| id.clone()).collect();
    assert_eq!(whole, owners, "each listed tenant has all its rows, and no other tenant has rows");
    assert_eq!(rows.len(), owners.len() + 1, "besides them there is the canary");
    whole
}

#[test]
fn child_creates_tenants() {
    let Some(folder) = children::folder() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let tell = |made: Result<String, tenantry_model::Failure>| {
            let line = match made {
                Ok(tenant) => format!("made {tenant}\n"),
                Err(failure) => format!("failed {:?} {}\n", failure.class, failure.code),
            };
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(line.as_bytes());
            let _ = out.flush();
        };
        let opened = pool(&folder).await;
        make(opened, || true, tell).await;
    });
}

#[tokio::test]
async fn a_killed_process_loses_no_reported_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let mut promised = BTreeSet::new();
    for round in 0..6 {
        let mut child =
            children::command("sqlite_pool_load::child_creates_tenants", dir.path(), "").spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // First as early as possible, then later and later.
        for _ in 0..round * 97 {
            let line = lines
                .by_ref()
                .map(Result::unwrap)
                .find(|line| line.contains("made "))
                .expect("it creates tenants");
            promised.extend(line.split_once("made ").map(|(_, tenant)| tenant.to_owned()));
        }
        children::kill(child);
        for line in lines.map_while(Result::ok) {
            // Tenants reported in the pipe count as well.
            promised.extend(
                line.split_once("made ").map(|(_, tenant)| tenant.to_owned()).filter(|t| t.len() == 30),
            );
        }
        pool(dir.path()).await.probe().await.unwrap();
        let there = whole_tenants(dir.path()).await;
        assert!(promised.is_subset(&there), "lost: {:?}", promised.difference(&there).collect::<Vec<_>>());
    }
    assert!(promised.len() > 97 * 15 / 2, "{}", promised.len());
}

#[tokio::test]
async fn a_full_disk_is_reported_and_damages_nothing() {
    let dir = tempfile::tempdir().unwrap();
    pool(dir.path()).await.probe().await.unwrap();
    // Limits files to 4,000 blocks of 512 bytes, enough for some batches, and ignores the signal that would
    // end the process.
    let limit = "trap '' XFSZ; ulimit -f 4000;";
    let output =
        children::command("sqlite_pool_load::child_creates_tenants", dir.path(), limit).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let failures: BTreeSet<&str> =
        text.lines().filter_map(|line| Some(line.split_once("failed ")?.1)).collect();
    assert!(!failures.is_empty(), "{text}");
    for failure in failures {
        assert!(["Retryable io_error", "Retryable disk_full"].contains(&failure), "{failure}");
    }
    let promised: BTreeSet<String> =
        text.lines().filter_map(|line| Some(line.split_once("made ")?.1.to_owned())).collect();
    assert!(!promised.is_empty(), "no tenant was created: {text}");
    let again = pool(dir.path()).await;
    again.ensure(&World::default().context(), &spec(json!({ "seed": "defaults" }))).await.unwrap();
    assert!(promised.is_subset(&whole_tenants(dir.path()).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_tenants_are_complete() {
    const TENANTS: i64 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let opened = pool(dir.path()).await;
    opened.probe().await.unwrap();
    let left = Arc::new(std::sync::atomic::AtomicI64::new(TENANTS));
    let begin = Instant::now();
    make(
        opened,
        move || left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) > 0,
        |made| drop(made.unwrap()),
    )
    .await;
    let rate = TENANTS as f64 / begin.elapsed().as_secs_f64();
    assert_eq!(whole_tenants(dir.path()).await.len(), TENANTS as usize);
    if let Some(report) = std::env::var_os("TENANTRY_REPORT_FILE") {
        let line = format!(
            "sqlite_pool: {TENANTS} tenants, {CALLERS} at once, {rate:.0} per second (build for tests)\n"
        );
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(report)
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
    }
    println!("{rate:.0} tenants per second");
}
