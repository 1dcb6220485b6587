//! Isolation on PostgreSQL: what a tenant's login can reach, and which other roles are kept out.

use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row};
use tenantry_model::FailureClass;
use tenantry_provider::Observed;
use tenantry_testkit::database::admin;

use crate::contract::Environment;
use crate::postgres::{Fixture, MODELS, Model, connect, ensured, log_in, make, refused};
use crate::world::spec;

async fn count(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn a_login_sees_its_own_rows_only() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let ((a, made_a), (b, made_b)) = (make(&fixture).await, make(&fixture).await);
        let mut session = log_in(&fixture, &a, &made_a.outputs).await.unwrap();
        assert_eq!(count(&mut session, "SELECT count(*) FROM workspaces").await, 1, "{model:?}");
        let sum = format!("SELECT count(*) FROM tasks WHERE tenant_id <> '{}'", a.tenant.id);
        assert_eq!(count(&mut session, &sum).await, 0);
        session.execute("UPDATE workspaces SET name = 'Renamed'").await.unwrap();
        refused(&mut session, "SELECT * FROM _migrations", "42501").await;
        refused(&mut session, "CREATE TABLE mine (x int)", "42501").await;
        refused(&mut session, &format!("SET ROLE \"{}\"", b.name), "42501").await;
        refused(
            &mut session,
            "SELECT * FROM tenantry.homes",
            if model == Model::Database { "42P01" } else { "42501" },
        )
        .await;
        let mut other = log_in(&fixture, &b, &made_b.outputs).await.unwrap();
        assert_eq!(count(&mut other, "SELECT count(*) FROM workspaces WHERE name = 'Renamed'").await, 0);
    }
}

#[tokio::test]
async fn no_setting_changes_the_tenant_of_a_login() {
    let Some(fixture) = Fixture::of(Model::Pool).await else { return };
    let ((a, made), (b, _)) = (make(&fixture).await, make(&fixture).await);
    let mut session = log_in(&fixture, &a, &made.outputs).await.unwrap();
    for set in
        ["SET app.current_tenant_id", "SET LOCAL app.current_tenant_id", "SET SESSION app.current_tenant_id"]
    {
        let seen: Vec<String> = {
            session.execute(AssertSqlSafe(format!("BEGIN; {set} = '{}'", b.tenant.id))).await.unwrap();
            let seen =
                sqlx::query_scalar("SELECT DISTINCT tenant_id FROM workspaces").fetch_all(&mut session);
            let seen = seen.await.unwrap();
            session.execute("COMMIT").await.unwrap();
            seen
        };
        assert_eq!(seen, [a.tenant.id.to_string()], "{set}");
    }
    let theirs = format!("INSERT INTO workspaces (tenant_id, id, name) VALUES ('{}', 'x', 'x')", b.tenant.id);
    refused(&mut session, &theirs, "42501").await;
    let moved = format!("UPDATE workspaces SET tenant_id = '{}'", b.tenant.id);
    refused(&mut session, &moved, "42501").await;
    refused(&mut session, "ALTER TABLE workspaces DISABLE ROW LEVEL SECURITY", "42501").await;
    let deleted =
        session.execute(AssertSqlSafe(format!("DELETE FROM tasks WHERE tenant_id = '{}'", b.tenant.id)));
    assert_eq!(deleted.await.unwrap().rows_affected(), 0);
}

#[tokio::test]
async fn the_access_row_is_obeyed_and_other_roles_have_no_tenant() {
    let Some(fixture) = Fixture::of(Model::Pool).await else { return };
    let (a, made) = make(&fixture).await;
    let mut session = log_in(&fixture, &a, &made.outputs).await.unwrap();
    let fence = |word: &str| format!("UPDATE tenantry.homes SET access = '{word}' WHERE name = '{}'", a.name);
    fixture.sql(&fence("read_only")).await;
    assert_eq!(count(&mut session, "SELECT count(*) FROM workspaces").await, 1);
    assert_eq!(session.execute("UPDATE workspaces SET name = 'x'").await.unwrap().rows_affected(), 0);
    fixture.sql(&fence("blocked")).await;
    assert_eq!(count(&mut session, "SELECT count(*) FROM workspaces").await, 0);
    fixture.sql(&fence("full")).await;
    assert_eq!(count(&mut session, "SELECT count(*) FROM workspaces").await, 1);

    // A role with all privileges on the tables that is neither a tenant's login nor the application.
    let stranger = format!("stranger_{}", a.tenant.id.suffix());
    for sql in [
        format!("CREATE ROLE {stranger} LOGIN"),
        format!("GRANT USAGE ON SCHEMA tenantry, tenantry_pool TO {stranger}"),
        format!("GRANT EXECUTE ON FUNCTION tenantry.session_tenant(boolean) TO {stranger}"),
        format!("GRANT ALL ON ALL TABLES IN SCHEMA tenantry_pool TO {stranger}"),
    ] {
        fixture.sql(&sql).await;
    }
    let options: PgConnectOptions = fixture.url().parse().unwrap();
    let mut session = options.username(&stranger).connect().await.unwrap();
    session.execute(AssertSqlSafe(format!("SET app.current_tenant_id = '{}'", a.tenant.id))).await.unwrap();
    assert_eq!(count(&mut session, "SELECT count(*) FROM tenantry_pool.workspaces").await, 0);
    drop(session);
    fixture.sql(&format!("DROP OWNED BY {stranger}")).await;
    fixture.sql(&format!("DROP ROLE {stranger}")).await;
}

#[tokio::test]
async fn other_tenants_schemas_and_databases_are_unreachable() {
    let Some(fixture) = Fixture::of(Model::Schema).await else { return };
    let ((a, made), (b, _)) = (make(&fixture).await, make(&fixture).await);
    let mut session = log_in(&fixture, &a, &made.outputs).await.unwrap();
    refused(&mut session, &format!("SELECT * FROM \"{}\".workspaces", b.name), "42501").await;
    session.execute(AssertSqlSafe(format!("SET search_path = \"{}\"", b.name))).await.unwrap();
    refused(&mut session, "SELECT * FROM workspaces", "42P01").await;
    refused(&mut session, &format!("DROP SCHEMA \"{}\" CASCADE", b.name), "42501").await;

    let Some(fixture) = Fixture::of(Model::Database).await else { return };
    let ((a, mut made), (b, _)) = (make(&fixture).await, make(&fixture).await);
    made.outputs["database"] = json!(b.name);
    let error = log_in(&fixture, &a, &made.outputs).await.expect_err("another tenant's database");
    assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"));
}

#[tokio::test]
async fn unusual_names_are_quoted() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let mut done = Vec::new();
        let id = spec(json!({})).tenant.id.suffix();
        for name in [
            format!("a\"; drop {id}"),
            format!("{}{id}", "ü".repeat(18)),
            format!("select {id}"),
            format!("it's\\ {id}"),
            format!("SELECT {id}"),
            format!("50%s %% %1$I {id}"),
        ] {
            let mut odd = spec(fixture.settings());
            odd.name = name;
            let made = ensured(&fixture, &odd).await;
            let mut session = log_in(&fixture, &odd, &made.outputs).await.unwrap();
            assert_eq!(count(&mut session, "SELECT count(*) FROM workspaces").await, 1, "{}", odd.name);
            let rows = fixture.provider.data().unwrap().scoped(odd.tenant.id);
            assert!(rows.get("workspaces", "default").await.unwrap().is_some(), "{}", odd.name);
            done.push(odd);
        }
        for odd in done {
            fixture.provider.remove(&fixture.world.context(), &odd).await.unwrap();
            assert_eq!(fixture.count(&odd).await, 0, "{}", odd.name);
        }
        for bad in ["", "pg_catalog", "public", &"ü".repeat(32), "a\0b"] {
            let mut refused = spec(fixture.settings());
            bad.clone_into(&mut refused.name);
            let failure = fixture.provider.ensure(&fixture.world.context(), &refused).await.unwrap_err();
            assert_eq!((failure.class, &*failure.code), (FailureClass::Invalid, "bad_name"), "{bad:?}");
        }
    }
}

#[tokio::test]
async fn untagged_objects_are_foreign() {
    for (model, plant, clear) in [
        (Model::Schema, "CREATE SCHEMA \"NAME\"", "DROP SCHEMA \"NAME\""),
        (Model::Schema, "CREATE ROLE \"NAME\"", "DROP ROLE \"NAME\""),
        (Model::Database, "CREATE DATABASE \"NAME\"", "DROP DATABASE \"NAME\""),
        (Model::Pool, "CREATE ROLE \"NAME\"", "DROP ROLE \"NAME\""),
    ] {
        let Some(fixture) = Fixture::of(model).await else { return };
        let spec = spec(fixture.settings());
        let context = fixture.world.context();
        fixture.sql(&plant.replace("NAME", &spec.name)).await;
        let failure = fixture.provider.ensure(&context, &spec).await.unwrap_err();
        assert_eq!((failure.class, &*failure.code), (FailureClass::Fatal, "name_taken"), "{plant}");
        assert_eq!(fixture.provider.observe(&context, &spec).await.unwrap(), Observed::Foreign, "{plant}");
        fixture.provider.remove(&context, &spec).await.unwrap();
        // It still exists.
        fixture.sql(&clear.replace("NAME", &spec.name)).await;
        fixture.provider.ensure(&context, &spec).await.unwrap();
        fixture.provider.remove(&context, &spec).await.unwrap();
    }
}

#[tokio::test]
async fn dropped_policies_are_reported_and_recreated() {
    let Some(fixture) = Fixture::of(Model::Pool).await else { return };
    let (spec, _) = make(&fixture).await;
    for harm in [
        "DROP POLICY tenantry_select ON tenantry_pool.tasks",
        "ALTER TABLE tenantry_pool.tasks NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE tenantry_pool.tasks DISABLE ROW LEVEL SECURITY",
    ] {
        fixture.sql(harm).await;
        let healthy =
            async || fixture.provider.observe(&fixture.world.context(), &spec).await.unwrap().is_healthy();
        assert!(!healthy().await, "{harm}");
        ensured(&fixture, &spec).await;
        assert!(healthy().await, "{harm}");
    }
    let bound = fixture
        .sql("SELECT bool_and(relrowsecurity AND relforcerowsecurity) FROM pg_class WHERE relnamespace = 'tenantry_pool'::regnamespace AND relkind = 'r' AND relname <> '_migrations'")
        .await;
    assert!(bound[0].get::<bool, _>(0));
}

#[tokio::test]
async fn an_application_role_that_bypasses_policies_is_rejected() {
    let Some(fixture) = Fixture::with(Model::Pool, |config| config.app_role = "postgres".to_owned()).await
    else {
        return;
    };
    let failure = fixture.provider.probe().await.unwrap_err();
    assert_eq!((failure.class, &*failure.code), (FailureClass::Fatal, "bad_role"), "{failure}");
    let mut connection = connect(fixture.url()).await;
    assert_eq!(count(&mut connection, "SELECT count(*) FROM pg_class WHERE relname = 'workspaces'").await, 0);
}

#[tokio::test]
async fn an_operators_application_role_is_used_without_its_admin_option() {
    let Some(fixture) = Fixture::with_plain_administrator(Model::Pool).await else { return };
    let (app, options) = (fixture.app_role(), fixture.url().parse::<PgConnectOptions>().unwrap());
    let mut superuser = connect(&admin().unwrap()).await;
    let member = format!("CREATE ROLE {app}; GRANT {app} TO {}", options.get_username());
    superuser.execute(AssertSqlSafe(member)).await.unwrap();
    let (spec, _) = make(&fixture).await;
    let rows = fixture.provider.data().unwrap().scoped(spec.tenant.id);
    assert_eq!(rows.list("tasks", 10, None).await.unwrap().rows.len(), 3);
}

#[tokio::test]
async fn an_application_sets_its_tenant_per_transaction() {
    let Some(fixture) = Fixture::of(Model::Pool).await else { return };
    let ((a, _), (b, _)) = (make(&fixture).await, make(&fixture).await);
    let (app, own) = (fixture.app_role(), format!("application_{}", a.tenant.id.suffix()));
    fixture.sql(&format!("CREATE ROLE {own} LOGIN IN ROLE {app}")).await;
    let options: PgConnectOptions = fixture.url().parse().unwrap();
    let mut session = options.username(&own).connect().await.unwrap();
    for tenant in [&a, &b] {
        let begin = format!(
            "BEGIN; SET LOCAL ROLE {app}; SET LOCAL search_path = tenantry_pool; SET LOCAL app.current_tenant_id = '{}'",
            tenant.tenant.id
        );
        session.execute(AssertSqlSafe(begin)).await.unwrap();
        let seen: Vec<String> =
            sqlx::query_scalar("SELECT DISTINCT tenant_id FROM tasks").fetch_all(&mut session).await.unwrap();
        assert_eq!(seen, [tenant.tenant.id.to_string()]);
        session.execute("COMMIT").await.unwrap();
    }
    assert_eq!(count(&mut session, "SELECT count(*) FROM tenantry_pool.tasks").await, 0, "no tenant is set");
    drop(session);
    fixture.sql(&format!("DROP ROLE {own}")).await;
}

#[tokio::test]
async fn an_administrator_needs_no_superuser_rights() {
    for model in MODELS {
        let Some(fixture) = Fixture::with_plain_administrator(model).await else { return };
        let ((a, made), (b, _)) = (make(&fixture).await, make(&fixture).await);
        assert!(fixture.provider.observe(&fixture.world.context(), &a).await.unwrap().is_healthy());
        let rows = fixture.provider.data().unwrap().scoped(a.tenant.id);
        assert_eq!(rows.list("tasks", 10, None).await.unwrap().rows.len(), 3, "{model:?}");
        let mut session = log_in(&fixture, &a, &made.outputs).await.unwrap();
        assert_eq!(count(&mut session, "SELECT count(*) FROM tasks").await, 3);
        // With an open session.
        for spec in [a, b] {
            let removed = fixture.provider.remove(&fixture.world.context(), &spec).await.unwrap();
            assert_eq!(removed.receipt["rows"]["tasks"], 3, "{model:?}");
        }
        assert!(session.execute("SELECT 1").await.is_err(), "{model:?}: the session is still open");
    }
}
