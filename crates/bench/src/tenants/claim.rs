//! The bench `claims`: sequential claims of warm schemas and databases, each with a commit like the
//! registry's, while the warm pool is not refilled.

use std::time::Instant;

use anyhow::{Result, ensure};
use sqlx::postgres::PgAdvisoryLock;
use sqlx::{Connection, Executor, PgConnection};
use tenantry_databases::postgres_database::DatabasePostgresDatabase;
use tenantry_databases::postgres_schema::DatabasePostgresSchema;
use tenantry_provider::Provider;

use super::world::{context, spec};
use super::{Amount, Fleet};
use crate::report::{self, at_most, milliseconds};
use crate::sandbox::Postgres;
use crate::statistics::percentile;

/// Aim of the median claim of a schema, in milliseconds.
const SCHEMA: f64 = 8.0;
/// Aim of the median claim of a database with its first connection, in milliseconds.
const DATABASE: f64 = 15.0;
/// Claims per database of the bench `databases`.
const MORE: usize = 2;

/// Table for the rows that the registry commits at the end of a step: step, resource, password.
const REGISTRY: &str = "CREATE TABLE ends (id text PRIMARY KEY, outputs text NOT NULL)";

/// Measures and prints it.
pub async fn measure(server: &Postgres, amount: Amount) -> Result<()> {
    report::section("Claims of warm schemas and databases, each with a commit of three rows");
    let fleet = Fleet::make(server, "claims").await?;
    let mut registry = server.open(&fleet.database).await?;
    registry.execute(REGISTRY).await?;
    let count = amount.databases * MORE;
    let warm = u16::try_from(count)?.min(100);

    let ready = DatabasePostgresSchema::new(fleet.servers(|config| config.warm_schemas = warm)?);
    ready.start().await?;
    ready.refilled().await;
    let _schemas = hold(server, &fleet, "schema").await?;
    let took = claims(&ready, warm, server, &mut registry, false).await?;
    print("a schema", &took, SCHEMA);

    let warm = warm.min(u16::try_from(amount.databases)?);
    let ready = DatabasePostgresDatabase::new(fleet.servers(|config| config.warm_databases = warm)?);
    ready.start().await?;
    ready.refilled().await;
    let _databases = hold(server, &fleet, "database").await?;
    let took = claims(&ready, warm, server, &mut registry, true).await?;
    print("a database with its first connection", &took, DATABASE);
    ensure!(warm_count(&mut registry).await? == 0, "some claims were created from nothing");
    registry.close().await?;
    fleet.remove().await
}

/// A session with the lock of the warm pool, so that it is not refilled during the claims.
async fn hold(server: &Postgres, fleet: &Fleet, isolation: &str) -> Result<PgConnection> {
    let connection = server.open(&fleet.database).await?;
    let lock = PgAdvisoryLock::new(format!("tenantry spare_{isolation}"));
    Ok(lock.acquire(connection).await?.leak())
}

/// Claims the whole warm pool; returns milliseconds per claim.
async fn claims(
    provider: &dyn Provider,
    count: u16,
    server: &Postgres,
    registry: &mut PgConnection,
    connecting: bool,
) -> Result<Vec<f64>> {
    provider.probe().await?;
    ensure!(warm_count(registry).await? == i64::from(count), "the warm pool is not full");
    let mut took = Vec::new();
    for _ in 0..count {
        let (context, spec) = (context(), spec());
        let asked = Instant::now();
        provider.ensure(&context, &spec).await?;
        if connecting {
            server.open(&spec.name).await?.close().await?;
        }
        let mut transaction = registry.begin().await?;
        for row in ["step", "resource", "credential"] {
            let sql = "INSERT INTO ends (id, outputs) VALUES ($1, $2)";
            let id = format!("{row} {}", spec.name);
            sqlx::query(sql).bind(id).bind(&spec.claim).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        took.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

/// Number of warm schemas and databases.
async fn warm_count(connection: &mut PgConnection) -> Result<i64> {
    let sql = "SELECT count(*) FROM tenantry.homes WHERE isolation LIKE 'spare%' AND completed IS NOT NULL";
    Ok(sqlx::query_scalar(sql).fetch_one(connection).await?)
}

fn print(what: &str, took: &[f64], aim: f64) {
    let [p50, most] = [0.5, 1.0].map(|part| percentile(took, part));
    let remark =
        format!("{}; the slowest of {} {}", at_most(p50, aim, " ms"), took.len(), milliseconds(most));
    report::line(&format!("{what}, p50"), &milliseconds(p50), &remark);
}
