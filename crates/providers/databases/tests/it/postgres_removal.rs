//! A removal ends whatever a tenant's login has made, and however many tables its schema has.

use sqlx::AssertSqlSafe;
use tenantry_provider::Observed;

use tenantry_testkit::TestDatabase;
use tenantry_testkit::database::on_server;
use tenantry_testkit::own_postgres::OwnPostgres;

use crate::contract::transfer::Export;
use crate::postgres::{Fixture, MODELS, Model, connect, ensured, log_in, make};
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

/// Restores without comments lose the mark of Tenantry's own schema.
#[tokio::test]
async fn a_removal_without_the_list_of_tenants_is_no_success() {
    for model in MODELS {
        let folder = Folder::new(&[("1_a.sql", TABLE)]);
        let Some(fixture) = folder.fixture(model).await else { return };
        let spec = bare();
        ensured(&fixture, &spec).await;
        fixture.sql("COMMENT ON SCHEMA tenantry IS NULL").await;
        let context = fixture.world.context();
        let restarted = fixture.another();
        let removed = restarted.remove(&context, &spec).await.unwrap_err();
        let seen = restarted.observe(&context, &spec).await.unwrap_err();
        for failure in [removed, seen] {
            assert_eq!(failure.code, "name_taken", "{model:?}: {failure}");
        }
        fixture.sql("COMMENT ON SCHEMA tenantry IS 'tenantry: the list of tenants'").await;
        restarted.remove(&context, &spec).await.unwrap();
    }
}

/// A table or partition takes two locks to be read and four to be dropped. The server has 2,688 locks and some in reserve.
#[tokio::test]
async fn a_schema_with_more_tables_than_locks_is_exported_and_removed() {
    const TABLES: usize = 600;
    const PARTITIONS: usize = 1_500;
    let Some(server) = OwnPostgres::start(&["max_connections=20", "fsync=off"]).await else { return };
    for model in [Model::Schema, Model::Database] {
        let fixture = Fixture::on(TestDatabase::on(&server.url()).await, model, |_| {});
        let (spec, _) = make(&fixture).await;
        let (url, schema) = match model {
            Model::Database => (on_server(fixture.url(), &spec.name), "public"),
            _ => (fixture.url().to_owned(), &*spec.name),
        };
        let mut session = connect(&url).await;
        let many = format!(
            "DO $$ BEGIN FOR n IN 1 .. {PARTITIONS} LOOP
                 EXECUTE format('CREATE TABLE parted_%s PARTITION OF parted FOR VALUES IN (%s)', n, n);
                 IF n <= {TABLES} THEN EXECUTE format('CREATE TABLE many_%s (id serial PRIMARY KEY)', n); END IF;
                 IF n % 100 = 0 THEN COMMIT; END IF;
             END LOOP; END $$"
        );
        for sql in [
            &*format!("SET search_path = \"{schema}\""),
            "CREATE TABLE parted (n int PRIMARY KEY) PARTITION BY LIST (n)",
            &*many,
            &*format!("INSERT INTO parted SELECT generate_series(1, {PARTITIONS}, 100)"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut session).await.expect(sql);
        }
        drop(session);
        let (context, transfer) = (fixture.world.context(), fixture.provider.transfer().unwrap());
        let mut export = Export::default();
        let content = transfer.export(&context, &spec, &mut export).await.unwrap();
        assert_eq!((content.counts["parted"], content.counts["many_600"]), (15, 0), "{model:?}");
        let files = export.0.iter().filter(|(path, _)| path.starts_with("parted.")).count();
        assert_eq!(files, 1, "the partitions are in the file of their table");
        assert_eq!(transfer.export(&context, &spec, &mut Export::default()).await.unwrap(), content);
        let receipt = fixture.provider.remove(&context, &spec).await.unwrap().receipt;
        assert_eq!(receipt["rows"]["parted"], 15, "{model:?}");
        let seen = fixture.provider.observe(&context, &spec).await.unwrap();
        assert!(matches!(seen, Observed::Absent), "{model:?}: {seen:?}");
    }
}
