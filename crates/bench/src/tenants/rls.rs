//! The bench `policies`: cost of row level security in the pool. The same prepared statements in one
//! transaction, by a role with policies and by one without.

use std::time::Instant;

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry_databases::postgres_pool::DatabasePostgresPool;
use tenantry_provider::Provider;

use super::world::{context, spec};
use super::{Amount, Fleet, baseline};
use crate::report;
use crate::sandbox::Postgres;
use crate::statistics::percentile;

/// Tenants in the shared tables.
const TENANTS: usize = 20;
/// Rows per tenant.
const ROWS: i64 = 1_000;
/// Statements per turn.
const STATEMENTS: i64 = 1_000;

/// Measures and prints it.
pub async fn measure(server: &Postgres, amount: Amount) -> Result<()> {
    report::section(&format!("Row level security in the pool: {TENANTS} tenants with {ROWS} rows each"));
    let fleet = Fleet::make(server, "pool").await?;
    let role = format!("app_{}", fleet.database);
    let provider = DatabasePostgresPool::new(fleet.servers(|config| config.app_role.clone_from(&role))?);
    let mut admin = server.open(&fleet.database).await?;
    let table = format!("tenantry_pool.{}", baseline::name(0));
    let mut tenant = String::new();
    for _ in 0..TENANTS {
        let spec = spec();
        provider.ensure(&context(), &spec).await?;
        tenant = spec.tenant.id.to_string();
        let fill = format!(
            "INSERT INTO {table} (tenant_id, id, title) SELECT '{tenant}', 'row ' || n, 'A title' FROM generate_series(1, {ROWS}) n"
        );
        admin.execute(AssertSqlSafe(fill)).await?;
    }
    admin.execute("VACUUM (ANALYZE)").await?;
    let point = format!("SELECT title, amount FROM {table} WHERE tenant_id = $1 AND id = $2");
    let insert = format!("INSERT INTO {table} (tenant_id, id, title) VALUES ($1, $2, 'A title')");
    let as_tenant = format!("SET LOCAL ROLE \"{role}\"; SET LOCAL app.current_tenant_id = '{tenant}'");
    for (what, statement, prefix) in [("a point query", &point, "row "), ("an insert", &insert, "new ")] {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..amount.turns {
            without.push(turn(&mut admin, "", statement, &tenant, prefix).await?);
            with.push(turn(&mut admin, &as_tenant, statement, &tenant, prefix).await?);
        }
        let [without, with] = [without, with].map(|turns| percentile(&turns, 0.5));
        report::line(&format!("{what} without policies"), &format!("{without:.1} us"), "");
        let remark = format!("{:+.1} us, {:.2} times", with - without, with / without);
        report::line(&format!("{what} with policies"), &format!("{with:.1} us"), &remark);
    }
    admin.close().await?;
    drop(provider);
    fleet.remove().await
}

/// Microseconds per statement; its writes are rolled back.
async fn turn(
    connection: &mut PgConnection,
    prelude: &str,
    statement: &str,
    tenant: &str,
    prefix: &str,
) -> Result<f64> {
    let mut transaction = connection.begin().await?;
    transaction.execute(AssertSqlSafe(prelude)).await?;
    let started = Instant::now();
    for n in 1..=STATEMENTS {
        let id = format!("{prefix}{n}");
        sqlx::query(AssertSqlSafe(statement)).bind(tenant).bind(id).execute(&mut *transaction).await?;
    }
    let took = started.elapsed().as_secs_f64() * 1e6 / STATEMENTS as f64;
    transaction.rollback().await?;
    Ok(took)
}
