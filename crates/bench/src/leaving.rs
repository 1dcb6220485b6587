//! The bench `leaving`: suspensions and erasures per second, and the time from a suspension to the last
//! allowed access by a token, by a signed address, and by the tenant's login to PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::client::{Connection, Until, Wait, onboard};
use crate::report::{self, at_most, milliseconds, whole};
use crate::sandbox::{Postgres, Sandbox};
use crate::server::Server;
use crate::statistics::percentile;

/// Concurrent connections.
const CONNECTIONS: usize = 8;
/// Longest time from the request of a suspension to the last allowed access, in milliseconds.
const BOUND: f64 = 1_000.0;
/// Polling interval of an operation.
const PAUSE: Duration = Duration::from_millis(2);
/// Longest time until a suspension denies an access.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Measures and prints it with a number of tenants, on PostgreSQL if a server is given.
pub async fn measure(postgres: Option<&Postgres>, tenants: usize) -> Result<()> {
    let sandbox = Sandbox::create(postgres).await?;
    report::section(&format!("Suspensions and erasures of {tenants} starter tenants on {}", sandbox.store()));
    let server = Server::start(&sandbox).await?;
    let until = Until { count: tenants, within: Duration::MAX };
    let made =
        onboard(server.connect(CONNECTIONS).await?, "Leaver", "starter", until, Wait::Committed).await?;
    ensure!(made.latencies.len() == tenants, "not every tenant was created");
    server.drain().await?;
    let (took, latencies) = every(&server, tenants, "suspend", json!({ "reason": "payment" })).await?;
    show("suspensions", tenants, took, &latencies);
    server.drain().await?;
    let (took, latencies) = every(&server, tenants, "erase", json!({ "reason": "the bench ends" })).await?;
    let rest = server.drain().await?;
    show("erasures, until the last is certified", tenants, took + rest, &latencies);
    server.stop().await?;
    sandbox.remove().await
}

fn show(what: &str, count: usize, took: Duration, latencies: &[f64]) {
    let rate = count as f64 / took.as_secs_f64();
    let p99 = milliseconds(percentile(latencies, 0.99));
    report::line(what, &format!("{}/s", whole(rate)), &format!("answered in p99 {p99}"));
}

/// Sends one request per tenant; returns the total time and each latency in milliseconds.
async fn every(server: &Server, tenants: usize, verb: &str, what: Value) -> Result<(Duration, Vec<f64>)> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    let connections = server.connect(CONNECTIONS).await?;
    let started = Instant::now();
    for mut connection in connections {
        let (next, verb, what) = (Arc::clone(&next), verb.to_owned(), what.clone());
        workers.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= tenants {
                    return anyhow::Ok(latencies);
                }
                let asked = Instant::now();
                connection.post(&format!("/v1/tenants/leaver-{n}/{verb}"), &what).await?;
                latencies.push(asked.elapsed().as_secs_f64() * 1e3);
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = workers.join_next().await {
        latencies.extend(ended??);
    }
    Ok((started.elapsed(), latencies))
}

/// A client with a kind of access from before the suspension.
enum Client {
    Token(Connection),
    Address(Connection, String),
    Login(PgConnection),
}

impl Client {
    async fn is_allowed(&mut self) -> bool {
        let answered = match self {
            Self::Token(connection) => connection.get("/data/projects").await,
            Self::Address(connection, path) => connection.get(path).await,
            Self::Login(connection) => {
                return sqlx::query("SELECT id FROM projects").fetch_all(connection).await.is_ok();
            }
        };
        answered.is_ok_and(|(status, _)| status.is_success())
    }

    /// Repeats the access until it is denied; returns the instant of the last allowed one.
    async fn repeat(mut self) -> Result<Instant> {
        let began = Instant::now();
        ensure!(self.is_allowed().await, "an active tenant is denied access");
        let mut last = Instant::now();
        while self.is_allowed().await {
            last = Instant::now();
            ensure!(began.elapsed() < TIMEOUT, "a suspended tenant keeps its access");
        }
        Ok(last)
    }
}

/// A growth tenant with every kind of access.
struct Tenant {
    token: String,
    address: String,
    /// URL of its database login, if it has one.
    login: Option<String>,
}

/// Measures and prints the time until a suspension denies each kind of access; database logins only on
/// PostgreSQL.
pub async fn bound(postgres: Option<&Postgres>, samples: usize) -> Result<()> {
    let sandbox = Sandbox::create(postgres).await?;
    report::section(&format!(
        "From a suspension's request to the last allowed access, {samples} times, on {}",
        sandbox.store()
    ));
    let tables = match (sandbox.postgres(), sandbox.databases()) {
        (Some(server), Some([registry, _])) => {
            // Tenants' schemas are in the registry's database.
            format!("[providers.postgres]\nurl = '{}'\n", server.database_url(&registry))
        }
        _ => String::new(),
    };
    let server = Server::start_with(&sandbox, &tables).await?;
    let mut admin = server.connect(1).await?.pop().context("a connection")?;
    let tenant = create(&mut admin).await?;
    let names = ["API, by a token", "file, by a signed address", "database, by the tenant's login"];
    let mut after = [const { Vec::new() }; 3];
    for _ in 0..samples {
        let mut clients = vec![
            Client::Token(admin.again(&tenant.token).await?),
            Client::Address(admin.again(&tenant.token).await?, tenant.address.clone()),
        ];
        if let Some(url) = &tenant.login {
            clients.push(Client::Login(log_in(url).await?));
        }
        let clients: Vec<_> = clients.into_iter().map(|client| tokio::spawn(client.repeat())).collect();
        tokio::time::sleep(PAUSE * 5).await;
        let asked = Instant::now();
        admin.post("/v1/tenants/stayer/suspend", &json!({ "reason": "payment" })).await?;
        for (client, after) in clients.into_iter().zip(&mut after) {
            after.push(client.await??.saturating_duration_since(asked).as_secs_f64() * 1e3);
        }
        admin.post("/v1/tenants/stayer/resume", &json!({})).await?;
    }
    for (name, after) in names.iter().zip(&after) {
        if after.is_empty() {
            report::skipped(name, "SQLite has no logins");
            continue;
        }
        let p99 = percentile(after, 0.99);
        let remark = format!("p50 {}, {}", milliseconds(percentile(after, 0.5)), at_most(p99, BOUND, " ms"));
        report::line(&format!("{name}: p99"), &milliseconds(p99), &remark);
    }
    server.stop().await?;
    sandbox.remove().await
}

/// A session of the tenant's login, after the fence is lifted.
async fn log_in(url: &str) -> Result<PgConnection> {
    let began = Instant::now();
    loop {
        match PgConnection::connect(url).await {
            Ok(connection) => return Ok(connection),
            Err(_) if began.elapsed() < TIMEOUT => tokio::time::sleep(PAUSE).await,
            Err(why) => return Err(why).context("an active tenant cannot log in"),
        }
    }
}

async fn create(admin: &mut Connection) -> Result<Tenant> {
    let document = json!({
        "tenant_name": "Stayer", "admin_user": { "email": "ada@bench.example" }, "subscription": { "plan": "growth" },
    });
    let begun = admin.post("/v1/tenants", &document).await?;
    let path = format!("/v1/operations/{}", begun["id"].as_str().context("an operation without an id")?);
    let operation = loop {
        let (_, text) = admin.get(&path).await?;
        let operation: Value = serde_json::from_str(&text)?;
        match operation["state"].as_str() {
            Some("succeeded") => break operation,
            Some("running") => tokio::time::sleep(PAUSE).await,
            other => bail!("the onboarding is {other:?}: {text}"),
        }
    };
    let claimed = admin.post(&format!("{path}/credentials"), &json!({})).await?;
    let secrets = claimed["credentials"].as_array().context("no credentials")?;
    let secret = |begins: &str| {
        let named = |secret: &&Value| secret["name"].as_str().is_some_and(|name| name.starts_with(begins));
        secrets.iter().find(named).and_then(|secret| secret["value"].as_str())
    };
    let invitation =
        json!({ "grant_type": "invitation", "token": secret("invitation").context("no invitation")? });
    let signed_in = admin.post("/auth/token", &invitation).await?;
    let token = signed_in["access_token"].as_str().context("no token")?.to_owned();
    let mut own = admin.again(&token).await?;
    let mut address = String::new();
    for method in ["PUT", "GET"] {
        let wish = json!({ "key": "bench.txt", "method": method, "expires_in": 3600 });
        let signed = own.post("/objects/urls", &wish).await?;
        let url = signed["url"].as_str().context("no address")?;
        address = url.find("/files/").and_then(|at| url.get(at..)).context("no path")?.to_owned();
        if method == "PUT" {
            own.put(&address, "bytes").await?;
        }
    }
    let made = &operation["response"]["resources"]["database"]["outputs"];
    let part = |key: &str| made[key].to_string().trim_matches('"').to_owned();
    let login = secret("postgres_password").map(|password| {
        let [role, host, port, database] = ["role", "host", "port", "database"].map(part);
        format!("postgres://{role}:{password}@{host}:{port}/{database}")
    });
    Ok(Tenant { token, address, login })
}
