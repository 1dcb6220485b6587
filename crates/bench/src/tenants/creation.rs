//! Creation of schemas and databases without a warm pool, beside the limit, measured alternately because of
//! noise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry_databases::postgres_database::DatabasePostgresDatabase;
use tenantry_databases::postgres_schema::DatabasePostgresSchema;
use tenantry_model::TenantId;
use tenantry_provider::Provider;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::world::{context, spec};
use super::{Fleet, limit};
use crate::report::{self, at_least, at_most, milliseconds, per_second, whole};
use crate::sandbox::Postgres;
use crate::statistics::{Spread, percentile};

/// Lowest rate of the provider, as a share of the limit.
const SHARE: f64 = 0.9;
/// Lowest rate of the provider, as a share of a bare CREATE DATABASE.
const SHARE_OF_BARE: f64 = 0.8;
/// Highest ratio of the durations in a large and in a small fleet.
const FLAT: f64 = 1.6;
/// Concurrent creations.
const IN_FLIGHT: [usize; 2] = [1, 8];
/// Schemas of a small fleet.
const FEW: usize = 100;

/// Size of the measurement.
#[derive(Clone, Copy)]
pub struct Amount {
    /// Schemas of each side.
    pub schemas: usize,
    /// Schemas of the large fleet.
    pub fleet: usize,
    /// Databases of each side.
    pub databases: usize,
    /// Alternations of the sides.
    pub turns: usize,
}

/// Runs `work` `count` times; returns the total time and each duration in milliseconds. `work` gets the
/// worker's number.
pub async fn many<F>(
    count: usize,
    in_flight: usize,
    work: impl Fn(usize) -> F + Send + Sync + 'static,
) -> Result<(Duration, Vec<f64>)>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (next, work) = (Arc::new(AtomicUsize::new(0)), Arc::new(work));
    let mut workers = JoinSet::new();
    let started = Instant::now();
    for worker in 0..in_flight {
        let (next, work) = (next.clone(), work.clone());
        workers.spawn(async move {
            let mut each = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let asked = Instant::now();
                work(worker).await?;
                each.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(each)
        });
    }
    let mut each = Vec::new();
    while let Some(ended) = workers.join_next().await {
        each.extend(ended??);
    }
    Ok((started.elapsed(), each))
}

/// Creates resources with the provider.
pub async fn by_provider(
    provider: &Arc<dyn Provider>,
    count: usize,
    in_flight: usize,
) -> Result<(Duration, Vec<f64>)> {
    let provider = provider.clone();
    many(count, in_flight, move |_| {
        let provider = provider.clone();
        async move { Ok(provider.ensure(&context(), &spec()).await.map(drop)?) }
    })
    .await
}

/// Creates resources by a script on `in_flight` connections.
async fn by_script(
    server: &Postgres,
    database: &str,
    count: usize,
    in_flight: usize,
    sql: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Result<Duration> {
    let mut connections: Vec<Arc<Mutex<PgConnection>>> = Vec::new();
    for _ in 0..in_flight {
        connections.push(Arc::new(Mutex::new(server.open(database).await?)));
    }
    let took = many(count, in_flight, move |worker| {
        let (connection, sql) = (connections[worker].clone(), sql());
        async move {
            connection.lock().await.execute(AssertSqlSafe(sql)).await?;
            Ok(())
        }
    });
    Ok(took.await?.0)
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Prints both rates and their ratio; returns the provider's rate per second.
fn compare(what: &str, limit: &[f64], provider: &[f64], aim: f64) -> f64 {
    let [limit, provider] = [Spread::of(limit), Spread::of(provider)];
    let share = provider.median / limit.median;
    report::line(&format!("{what}, the limit"), &per_second(&limit), "");
    let remark = format!("{share:.2} of the limit; {}", at_least(share, aim, ""));
    report::line(what, &per_second(&provider), &remark);
    provider.median
}

/// Measures schemas per second; returns the provider's rate with one at a time.
pub async fn schemas(server: &Postgres, amount: Amount) -> Result<f64> {
    report::section(&format!(
        "Schemas without a warm pool: 20 tables in 8 migrations, {} turns of {}",
        amount.turns,
        amount.schemas / amount.turns
    ));
    let fleet = Fleet::make(server, "schemas").await?;
    let mut rates = Vec::new();
    for in_flight in IN_FLIGHT {
        // A new provider, because connections that the others did not use have stale caches.
        let provider: Arc<dyn Provider> = Arc::new(DatabasePostgresSchema::new(fleet.servers(|_| {})?));
        provider.probe().await?;
        by_provider(&provider, 8, in_flight).await?;
        let count = (amount.schemas / amount.turns).max(in_flight);
        let (mut limits, mut product) = (Vec::new(), Vec::new());
        for _ in 0..amount.turns {
            let database = fleet.database.clone();
            let script = move || limit::script(&limit::name(), &database);
            limits.push(rate(count, by_script(server, &fleet.database, count, in_flight, script).await?));
            product.push(rate(count, by_provider(&provider, count, in_flight).await?.0));
        }
        rates.push(compare(&format!("schemas, {in_flight} at a time"), &limits, &product, SHARE));
    }
    limit::check_equal(server.open(&fleet.database).await?).await?;
    fleet.remove().await?;
    rates.first().copied().context("nothing was measured")
}

/// Measures the creation of a schema in a small and in a large fleet.
pub async fn growth(server: &Postgres, amount: Amount) -> Result<()> {
    report::section(&format!("Schemas among {FEW} and among {}", whole(amount.fleet as f64)));
    let fleet = Fleet::make(server, "growth").await?;
    let provider: Arc<dyn Provider> = Arc::new(DatabasePostgresSchema::new(fleet.servers(|_| {})?));
    provider.probe().await?;
    let half = FEW / 2;
    by_provider(&provider, half, 8).await?;
    let few = percentile(&by_provider(&provider, half, 1).await?.1, 0.5);
    by_provider(&provider, amount.fleet.saturating_sub(FEW + half), 8).await?;
    let many = percentile(&by_provider(&provider, half, 1).await?.1, 0.5);
    report::line(&format!("one schema among {FEW}, p50"), &milliseconds(few), "");
    let remark = format!("{:.2} times as long; {}", many / few, at_most(many / few, FLAT, ""));
    let what = format!("one schema among {}, p50", whole(amount.fleet as f64));
    report::line(&what, &milliseconds(many), &remark);
    drop(provider);
    fleet.remove().await
}

/// Measures databases per second.
pub async fn databases(server: &Postgres, amount: Amount) -> Result<()> {
    let count = (amount.databases / amount.turns).max(1);
    report::section(&format!(
        "Databases without a warm pool: the same tables, {} turns of {count}",
        amount.turns
    ));
    let fleet = Fleet::make(server, "databases").await?;
    let provider: Arc<dyn Provider> = Arc::new(DatabasePostgresDatabase::new(fleet.servers(|_| {})?));
    provider.probe().await?;
    let mut connection = server.open(&fleet.database).await?;
    let newest =
        "SELECT datname FROM pg_database WHERE datname LIKE 'tenantry\\_template\\_%' ORDER BY oid DESC";
    let template: String =
        sqlx::query_scalar(newest).fetch_one(&mut connection).await.context("the template does not exist")?;
    for in_flight in IN_FLIGHT {
        let (mut bare, mut product) = (Vec::new(), Vec::new());
        for _ in 0..amount.turns {
            let template = template.clone();
            let create = move || {
                let name = TenantId::new().suffix();
                format!("CREATE DATABASE bare_{name} TEMPLATE {template} STRATEGY WAL_LOG")
            };
            bare.push(rate(count, by_script(server, &fleet.database, count, in_flight, create).await?));
            product.push(rate(count, by_provider(&provider, count, in_flight).await?.0));
        }
        compare(&format!("databases, {in_flight} at a time"), &bare, &product, SHARE_OF_BARE);
    }
    drop(provider);
    fleet.remove().await
}
