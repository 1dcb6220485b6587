//! Fences on PostgreSQL: what a tenant's login can still do under each mode, in open and new sessions.

use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry_model::suspension::SuspensionMode;
use tenantry_provider::{Ensured, Order, Spec};

use crate::contract::{Environment, rival};
use crate::postgres::{Fixture, MODELS, Model, ensured, log_in, make, refused};

pub fn order(spec: &Spec, mode: Option<SuspensionMode>, version: i64) -> Order {
    Order {
        tenant: spec.tenant.id,
        resource: spec.resource,
        region: spec.tenant.region.clone(),
        name: spec.name.clone(),
        claim: spec.claim.clone(),
        mode,
        version,
    }
}

pub async fn fence(fixture: &Fixture, spec: &Spec, mode: Option<SuspensionMode>, version: i64) {
    fixture.provider.fence().unwrap().fence(&order(spec, mode, version)).await.unwrap();
}

async fn read(session: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM workspaces").fetch_one(session).await.unwrap()
}

const WRITE: &str = "UPDATE workspaces SET name = name || '!'";

async fn wrote(session: &mut PgConnection) -> u64 {
    session.execute(WRITE).await.unwrap().rows_affected()
}

async fn cannot_write(fixture: &Fixture, model: Model, session: &mut PgConnection) {
    let insert = "INSERT INTO workspaces SELECT * FROM workspaces";
    if model == Model::Pool {
        // Policies hide rows from commands that write.
        assert_eq!(wrote(session).await, 0);
        refused(session, insert, "42501").await;
    } else {
        for sql in [WRITE, insert, "DELETE FROM workspaces"] {
            refused(session, sql, "42501").await;
        }
    }
    refused(session, "RESET ROLE; SET SESSION AUTHORIZATION postgres", "42501").await;
    assert_eq!(read(session).await, 1, "{}", fixture.url());
}

#[tokio::test]
async fn each_mode_denies_its_access() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let ((spec, Ensured { outputs, .. }), (other, made)) = (make(&fixture).await, make(&fixture).await);
        let mut session = log_in(&fixture, &spec, &outputs).await.unwrap();
        let mut stranger = log_in(&fixture, &other, &made.outputs).await.unwrap();
        assert_eq!(wrote(&mut session).await, 1);

        // Open sessions are fenced too; other tenants are not.
        fence(&fixture, &spec, Some(SuspensionMode::ReadOnly), 1).await;
        cannot_write(&fixture, model, &mut session).await;
        cannot_write(&fixture, model, &mut log_in(&fixture, &spec, &outputs).await.unwrap()).await;
        assert_eq!(wrote(&mut stranger).await, 1);
        fence(&fixture, &spec, None, 2).await;
        assert_eq!(wrote(&mut session).await, 1);

        for (mode, version) in [(SuspensionMode::NoLogin, 3), (SuspensionMode::Blocked, 4)] {
            fence(&fixture, &spec, Some(mode), version).await;
            assert!(session.execute("SELECT 1").await.is_err(), "{model:?}: the session is still open");
            assert!(log_in(&fixture, &spec, &outputs).await.is_err(), "{model:?}");
            fence(&fixture, &spec, None, version).await;
            session = log_in(&fixture, &spec, &outputs).await.unwrap();
            assert_eq!((wrote(&mut session).await, read(&mut session).await), (1, 1));
        }
        assert_eq!(wrote(&mut stranger).await, 1);
    }
}

#[tokio::test]
async fn an_older_order_is_ignored() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let (spec, Ensured { outputs, .. }) = make(&fixture).await;
        fence(&fixture, &spec, Some(SuspensionMode::Blocked), 7).await;
        fence(&fixture, &spec, None, 6).await;
        assert!(log_in(&fixture, &spec, &outputs).await.is_err());
        fence(&fixture, &spec, None, 8).await;
        fence(&fixture, &spec, Some(SuspensionMode::Blocked), 7).await;
        log_in(&fixture, &spec, &outputs).await.unwrap();
    }
}

#[tokio::test]
async fn a_repaired_tenant_stays_fenced() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let (spec, Ensured { outputs, .. }) = make(&fixture).await;
        let mut session = log_in(&fixture, &spec, &outputs).await.unwrap();
        fence(&fixture, &spec, Some(SuspensionMode::ReadOnly), 1).await;
        ensured(&fixture, &spec).await;
        cannot_write(&fixture, model, &mut session).await;

        fence(&fixture, &spec, Some(SuspensionMode::Blocked), 2).await;
        let again = ensured(&fixture, &spec).await;
        assert!(again.writes.is_empty(), "{model:?}: the password has changed");
        assert!(log_in(&fixture, &spec, &outputs).await.is_err());
        fence(&fixture, &spec, None, 3).await;
        assert_eq!(wrote(&mut log_in(&fixture, &spec, &outputs).await.unwrap()).await, 1);
    }
}

#[tokio::test]
async fn absent_and_foreign_resources_are_not_fenced() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let (spec, Ensured { outputs, .. }) = make(&fixture).await;
        let before = fixture.snapshot().await;
        let foreign = order(&rival(&spec), Some(SuspensionMode::Blocked), 1);
        let failure = fixture.provider.fence().unwrap().fence(&foreign).await.unwrap_err();
        assert_eq!(failure.code, "name_taken");
        fence(&fixture, &crate::world::spec(fixture.settings()), Some(SuspensionMode::Blocked), 1).await;
        assert_eq!(fixture.snapshot().await, before);
        log_in(&fixture, &spec, &outputs).await.unwrap();
        // The application role is bound by the access row as well.
        if model == Model::Pool {
            fence(&fixture, &spec, Some(SuspensionMode::Blocked), 1).await;
            let sql = format!(
                "SET LOCAL ROLE {}; SET LOCAL app.current_tenant_id = '{}'",
                fixture.app_role(),
                spec.tenant.id
            );
            let mut connection = crate::postgres::connect(fixture.url()).await;
            connection.execute("BEGIN").await.unwrap();
            connection.execute(AssertSqlSafe(sql)).await.unwrap();
            let rows = "SELECT count(*) FROM tenantry_pool.workspaces";
            let rows: i64 = sqlx::query_scalar(rows).fetch_one(&mut connection).await.unwrap();
            assert_eq!(rows, 0);
        }
    }
}

#[tokio::test]
async fn temporary_objects_of_other_tenants_do_not_block_fences_or_removals() {
    // An administrator without superuser rights.
    let Some(fixture) = Fixture::with_plain_administrator(Model::Schema).await else { return };
    let ((spec, Ensured { outputs, .. }), (other, _)) = (make(&fixture).await, make(&fixture).await);
    let mut session = log_in(&fixture, &spec, &outputs).await.unwrap();
    let mut busy = log_in(&fixture, &spec, &outputs).await.unwrap();
    for schema in [&spec.name, &other.name] {
        // All depend on a schema that they are not in.
        let made = format!(
            "CREATE FUNCTION pg_temp.\"f {schema}\"(at regnamespace DEFAULT '{schema}'::regnamespace) RETURNS integer LANGUAGE sql AS 'SELECT 1';
             CREATE TEMP TABLE \"t {schema}\" (n integer) PARTITION BY LIST ((num_nulls(n, '{schema}'::regnamespace)));
             CREATE TEMP TABLE \"d {schema}\" (at regnamespace DEFAULT '{schema}'::regnamespace)"
        );
        for session in [&mut session, &mut busy] {
            sqlx::raw_sql(AssertSqlSafe(made.clone())).execute(session).await.unwrap();
        }
    }
    let (process, context) = (fixture.another(), fixture.world.context());
    for spec in [&spec, &other] {
        process.ensure(&context, spec).await.unwrap();
        assert!(process.observe(&context, spec).await.unwrap().is_healthy());
        let rows = process.data().unwrap().scoped(spec.tenant.id);
        assert!(rows.get("workspaces", "default").await.unwrap().is_some());
        fence(&fixture, spec, Some(SuspensionMode::ReadOnly), 1).await;
    }
    cannot_write(&fixture, Model::Schema, &mut session).await;

    let used = format!("BEGIN; SELECT FROM \"d {}\"", other.name);
    sqlx::raw_sql(AssertSqlSafe(used)).execute(&mut busy).await.unwrap();
    fixture.provider.remove(&context, &other).await.unwrap();
    assert_eq!(fixture.count(&other).await, 0);
    busy.execute("SELECT 1").await.unwrap_err();
    session.execute("SELECT 1").await.unwrap();
    fence(&fixture, &spec, Some(SuspensionMode::Blocked), 2).await;
    session.execute("SELECT 1").await.unwrap_err();
}
