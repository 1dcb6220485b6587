//! A removal ends whatever a tenant's login has made, and however many tables its schema has.

use sqlx::AssertSqlSafe;
use tenantry_provider::Observed;

use tenantry_testkit::TestDatabase;
use tenantry_testkit::own_postgres::OwnPostgres;

use crate::postgres::{Fixture, MODELS, Model, ensured, log_in, make};
use crate::postgres_failures::{Folder, TABLE, bare};

/// Large objects and default privileges belong to the login that made them, and PostgreSQL drops no role with any.
#[tokio::test]
async fn objects_of_a_tenants_login_do_not_block_its_removal() {
    for model in MODELS {
        let folder = Folder::new(&[("1_a.sql", TABLE)]);
        let Some(fixture) = folder.fixture(model).await else { return };
        let spec = bare();
        let made = ensured(&fixture, &spec).await;
        let mut session = log_in(&fixture, &spec, &made.outputs).await.unwrap();
        for sql in [
            "SELECT count(lo_create(0)) FROM generate_series(1, 2500)",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
            "CREATE TEMPORARY TABLE kept (a int)",
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut session).await.unwrap();
        }
        fixture.provider.remove(&fixture.world.context(), &spec).await.unwrap();
        let seen = fixture.provider.observe(&fixture.world.context(), &spec).await.unwrap();
        assert!(matches!(seen, Observed::Absent), "{model:?}: {seen:?}");
        let left = "SELECT count(*) FROM pg_largeobject_metadata";
        assert_eq!(sqlx::Row::get::<i64, _>(&fixture.sql(left).await[0], 0), 0, "{model:?}");
    }
}

/// Each table takes two locks to be counted and four to be dropped. The server has 2,560 locks and some in reserve.
#[tokio::test]
async fn a_schema_with_more_tables_than_locks_is_removed() {
    const TABLES: usize = 1_000;
    let Some(server) = OwnPostgres::start(&["max_connections=40", "fsync=off"]).await else { return };
    let fixture = Fixture::on(TestDatabase::on(&server.url()).await, Model::Schema, |_| {});
    let (spec, _) = make(&fixture).await;
    let schema = &spec.name;
    let many = format!(
        "DO $$ BEGIN FOR n IN 1 .. {TABLES} LOOP
         EXECUTE format('CREATE TABLE \"{schema}\".many_%s (tenant_id text NOT NULL, id text NOT NULL, PRIMARY KEY (tenant_id, id))', n);
         IF n % 100 = 0 THEN COMMIT; END IF; END LOOP; END $$"
    );
    fixture.sql(&many).await;
    fixture.provider.remove(&fixture.world.context(), &spec).await.unwrap();
    assert_eq!(fixture.sql(&format!("SELECT FROM pg_namespace WHERE nspname = '{schema}'")).await.len(), 0);
}
