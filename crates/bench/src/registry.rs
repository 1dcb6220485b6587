//! The bench `registry`: latency of lists, searches and look-ups over HTTP in a large registry, beside a
//! request that does not use the registry.

use std::time::Instant;

use anyhow::{Result, ensure};
use hyper::StatusCode;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use crate::fill::fill;
use crate::report::{self, at_most, milliseconds, whole};
use crate::sandbox::{Postgres, Sandbox, Store};
use crate::server::Server;
use crate::statistics::percentile;
use crate::throughput::sampled;

/// Changes to few tenants: one in a thousand gets another plan, another one in a thousand is suspended.
const RARE: [&str; 2] = [
    "UPDATE tenants SET plan = 'enterprise' WHERE id LIKE '%07'",
    "UPDATE tenants SET status = 'suspended' WHERE id LIKE '%0a'",
];
/// Tenants spread over the list.
const SOME: &str = "SELECT id FROM tenants WHERE id LIKE '%1b' ORDER BY id";

/// Aim of the 99th percentile in milliseconds.
const fn aim(store: Store) -> f64 {
    match store {
        Store::Sqlite => 1.0,
        Store::Postgres => 2.0,
    }
}

/// Measures one store and prints it, with a number of tenants and of requests per kind.
pub async fn measure(postgres: Option<&Postgres>, tenants: usize, requests: usize) -> Result<()> {
    let (sandbox, sample) = sampled(postgres).await?;
    let store = sandbox.store();
    report::section(&format!("The registry on {store} among {} tenants, over HTTP", whole(tenants as f64)));
    let started = Instant::now();
    fill(&sandbox, &sample, tenants - 1).await?;
    let some = vary(&sandbox).await?;
    ensure!(!some.is_empty(), "too few tenants to measure");
    let server = Server::start(&sandbox).await?;
    report::note(&format!(
        "filled in {:.1} s, ready {:.2} s after the start",
        started.elapsed().as_secs_f64(),
        server.started_in.as_secs_f64()
    ));
    let path = |question: &str, n: usize| {
        let id = &some[n * 37 % some.len()];
        question.replace("{id}", id)
    };
    for (what, question) in [
        ("a request without the registry", "/livez"),
        ("list, 50 from the newest", "/v1/tenants?limit=50"),
        ("list, 50 from anywhere", "/v1/tenants?limit=50&cursor={id}"),
        ("search by a rare plan", "/v1/tenants?limit=50&plan=enterprise&cursor={id}"),
        ("search by a rare status", "/v1/tenants?limit=50&status=suspended&cursor={id}"),
        ("search by both", "/v1/tenants?limit=50&status=suspended&plan=enterprise&cursor={id}"),
        ("look-up by id", "/v1/tenants/{id}"),
        ("look-up by slug", "/v1/tenants/sample-tenant"),
    ] {
        let mut client = server.connect(1).await?.remove(0);
        let mut took = Vec::new();
        for n in 0..requests + requests / 10 {
            let asked = Instant::now();
            let (status, text) = client.get(&path(question, n)).await?;
            took.push(asked.elapsed().as_secs_f64() * 1e3);
            ensure!(status == StatusCode::OK, "{question}: {status}: {text}");
        }
        // The first requests fill the caches and do not count.
        let warm = &took[requests / 10..];
        let [p50, p99] = [0.5, 0.99].map(|part| percentile(warm, part));
        let remark = format!("p50 {}; {}", milliseconds(p50), at_most(p99, aim(store), " ms"));
        report::line(&format!("{what}, p99"), &milliseconds(p99), &remark);
    }
    server.stop().await?;
    sandbox.remove().await
}

/// Changes some tenants while no server runs; returns ids of unchanged ones.
async fn vary(sandbox: &Sandbox) -> Result<Vec<String>> {
    if let (Some(server), Some([registry, _])) = (sandbox.postgres(), sandbox.databases()) {
        let mut connection = server.open(&registry).await?;
        for sql in RARE.into_iter().chain(["VACUUM (ANALYZE) tenants"]) {
            connection.execute(AssertSqlSafe(sql)).await?;
        }
        let some = sqlx::query_scalar(SOME).fetch_all(&mut connection).await?;
        connection.close().await?;
        return Ok(some);
    }
    let mut connection = SqliteConnectOptions::new().filename(sandbox.file("registry")).connect().await?;
    for sql in RARE {
        connection.execute(AssertSqlSafe(sql)).await?;
    }
    let some = sqlx::query_scalar(SOME).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(some)
}
