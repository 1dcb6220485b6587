//! Creation from nothing, beside the limit, in turns because machines are noisy: schemas, schemas among many, databases.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry_databases::database_postgres_database::DatabasePostgresDatabase;
use tenantry_databases::database_postgres_schema::DatabasePostgresSchema;
use tenantry_model::TenantId;
use tenantry_provider::Provider;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::world::{context, spec};
use super::{Fleet, limit};
use crate::place::Postgres;
use crate::report::{self, at_least, at_most, milliseconds, per_second, whole};
use crate::statistics::{Spread, percentile};

/// Share of the limit that the provider is to reach.
const SHARE: f64 = 0.9;
/// Share of a bare CREATE DATABASE.
const SHARE_OF_BARE: f64 = 0.8;
/// How many times longer a creation may take among many.
const FLAT: f64 = 1.6;
/// Creations at the same time.
const IN_FLIGHT: [usize; 2] = [1, 8];
/// A fleet that is small.
const FEW: usize = 100;

/// How much is made.
#[derive(Clone, Copy)]
pub struct Amount {
    /// Schemas by each of those that are compared.
    pub schemas: usize,
    /// Schemas in the fleet that grows.
    pub fleet: usize,
    /// Databases by each of those that are compared.
    pub databases: usize,
    /// Turns that they take.
    pub turns: usize,
}

/// Does it so many times, and tells how long all took, and each, in milliseconds. `work` is given the number of who does it.
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

/// Has the provider make so many.
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

/// Has as many connections execute what `sql` says each time.
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

/// Prints both, and what share of the limit the provider reaches; gives what it makes per second.
fn compare(what: &str, limit: &[f64], provider: &[f64], aim: f64) -> f64 {
    let [limit, provider] = [Spread::of(limit), Spread::of(provider)];
    let share = provider.median / limit.median;
    report::line(&format!("{what}, the limit"), &per_second(&limit), "");
    let remark = format!("{share:.2} of the limit; {}", at_least(share, aim, ""));
    report::line(what, &per_second(&provider), &remark);
    provider.median
}

/// Schemas per second; gives what the provider makes one after the other.
pub async fn schemas(server: &Postgres, amount: Amount) -> Result<f64> {
    report::section(&format!(
        "Schemas from nothing: 20 tables in 8 migrations, {} turns of {}",
        amount.turns,
        amount.schemas / amount.turns
    ));
    let fleet = Fleet::make(server, "schemas").await?;
    let mut rates = Vec::new();
    for in_flight in IN_FLIGHT {
        // One that has as many connections as it needs for this: of more, each would have forgotten what the others changed.
        let provider: Arc<dyn Provider> = Arc::new(DatabasePostgresSchema::new(fleet.servers(|_| {})?));
        provider.probe().await?;
        by_provider(&provider, 8, in_flight).await?;
        let count = (amount.schemas / amount.turns).max(in_flight);
        let (mut limits, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..amount.turns {
            let database = fleet.database.clone();
            let script = move || limit::script(&limit::name(), &database);
            limits.push(rate(count, by_script(server, &fleet.database, count, in_flight, script).await?));
            ours.push(rate(count, by_provider(&provider, count, in_flight).await?.0));
        }
        rates.push(compare(&format!("schemas, {in_flight} at a time"), &limits, &ours, SHARE));
    }
    limit::must_be_like(server.open(&fleet.database).await?).await?;
    fleet.remove().await?;
    rates.first().copied().context("nothing was measured")
}

/// What a schema takes among few and among many.
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

/// Databases per second.
pub async fn databases(server: &Postgres, amount: Amount) -> Result<()> {
    let count = (amount.databases / amount.turns).max(1);
    report::section(&format!("Databases from nothing: the same tables, {} turns of {count}", amount.turns));
    let fleet = Fleet::make(server, "databases").await?;
    let provider: Arc<dyn Provider> = Arc::new(DatabasePostgresDatabase::new(fleet.servers(|_| {})?));
    provider.probe().await?;
    let mut connection = server.open(&fleet.database).await?;
    let newest =
        "SELECT datname FROM pg_database WHERE datname LIKE 'tenantry\\_template\\_%' ORDER BY oid DESC";
    let template: String =
        sqlx::query_scalar(newest).fetch_one(&mut connection).await.context("there is no template")?;
    for in_flight in IN_FLIGHT {
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..amount.turns {
            let template = template.clone();
            let create = move || {
                let name = TenantId::new().suffix();
                format!("CREATE DATABASE bare_{name} TEMPLATE {template} STRATEGY WAL_LOG")
            };
            bare.push(rate(count, by_script(server, &fleet.database, count, in_flight, create).await?));
            ours.push(rate(count, by_provider(&provider, count, in_flight).await?.0));
        }
        compare(&format!("databases, {in_flight} at a time"), &bare, &ours, SHARE_OF_BARE);
    }
    drop(provider);
    fleet.remove().await
}
