//! The partitioned pool: it keeps the contract of shared tables, and partitions cannot be reached directly.

use sqlx::{AssertSqlSafe, Row};
use tenantry_provider::{Observed, Outcome};

use crate::contract::must_keep_contract;
use crate::postgres::{Fixture, Model, ensured, log_in, make, refused};
use crate::transfer;

const PARTS: i64 = 4;

async fn fixture() -> Option<Fixture> {
    Fixture::with(Model::Pool, |config| config.partitions = 4).await
}

/// Names of a shared table's partitions.
async fn parts(fixture: &Fixture, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'tenantry_pool.{table}'::regclass ORDER BY 1"
    );
    fixture.sql(&sql).await.iter().map(|row| row.get(0)).collect()
}

/// Number of these tables that have rows.
async fn filled(fixture: &Fixture, tables: &[String]) -> i64 {
    let each = tables.iter().map(|table| format!("(EXISTS (SELECT FROM {table}))::int"));
    let sum = each.collect::<Vec<_>>().join(" + ");
    i64::from(fixture.sql(&format!("SELECT {sum}")).await[0].get::<i32, _>(0))
}

#[tokio::test]
async fn partitioned_tables_keep_the_contract() {
    let Some(fixture) = fixture().await else { return };
    must_keep_contract(&fixture).await;
    transfer::on_postgres(self::fixture().await.unwrap()).await;
}

#[tokio::test]
async fn partitions_cannot_be_reached_directly() {
    let Some(fixture) = fixture().await else { return };
    let (spec, made) = make(&fixture).await;
    for _ in 0..15 {
        make(&fixture).await;
    }
    let tasks = parts(&fixture, "tasks").await;
    assert_eq!(i64::try_from(tasks.len()).unwrap(), PARTS);
    assert!(filled(&fixture, &tasks).await > 1, "sixteen tenants are in one partition");
    let mut session = log_in(&fixture, &spec, &made.outputs).await.unwrap();
    let mine: i64 = sqlx::query_scalar("SELECT count(*) FROM tasks").fetch_one(&mut session).await.unwrap();
    assert_eq!(mine, 3);
    for part in &tasks {
        refused(&mut session, &format!("SELECT FROM {part}"), "42501").await;
        refused(&mut session, &format!("DELETE FROM {part}"), "42501").await;
    }
    let check = async || {
        let cells = fixture.provider.isolation().unwrap().check(&[spec.tenant.id]).await.unwrap().cells;
        let red = cells.into_iter().filter(|cell| cell.outcome == Outcome::Leak);
        red.flat_map(|cell| cell.found).collect::<Vec<_>>()
    };
    assert_eq!(check().await, [""; 0]);

    // A grant on a partition is a leak to the check, and still shows no row.
    let part = &tasks[0];
    fixture.sql("GRANT USAGE ON SCHEMA tenantry_pool_partitions TO PUBLIC").await;
    fixture.sql(&format!("GRANT SELECT ON {part} TO PUBLIC")).await;
    let bare = part.replace('"', "");
    assert_eq!(check().await, [bare.clone(), "tenantry_pool_partitions".to_owned(), bare]);
    let sql = AssertSqlSafe(format!("SELECT count(*) FROM {part}"));
    let seen: i64 = sqlx::query_scalar(sql).fetch_one(&mut session).await.unwrap();
    assert_eq!(seen, 0);
}

#[tokio::test]
async fn a_lost_partition_is_reported() {
    let Some(fixture) = fixture().await else { return };
    let (spec, _) = make(&fixture).await;
    let parts = parts(&fixture, "tasks").await;
    fixture.sql(&format!("ALTER TABLE tenantry_pool.tasks DETACH PARTITION {}", parts[0])).await;
    let seen = fixture.another();
    let Observed::Present { differs, .. } = seen.observe(&fixture.world.context(), &spec).await.unwrap()
    else {
        panic!("it is absent")
    };
    assert_eq!(differs.len(), 1, "{differs:?}");
    assert!(differs[0].contains("table `tasks`") && differs[0].contains("partitions"), "{differs:?}");
}

/// The setting applies to new tables only.
#[tokio::test]
async fn existing_tables_stay_unpartitioned() {
    let Some(mut fixture) = Fixture::of(Model::Pool).await else { return };
    let (spec, _) = make(&fixture).await;
    fixture.reconfigure(|config| config.partitions = 4);
    ensured(&fixture, &spec).await;
    assert!(parts(&fixture, "tasks").await.is_empty());
    let seen = fixture.provider.observe(&fixture.world.context(), &spec).await.unwrap();
    assert!(seen.is_healthy(), "{seen:?}");
}
