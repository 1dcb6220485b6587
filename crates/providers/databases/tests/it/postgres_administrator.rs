//! Administrators of managed PostgreSQL: not a superuser, with the rights that an isolation needs and no others. Each
//! right that is missing is named with the statement that grants it, and nothing is created without it.

use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Row as _};
use tenantry_model::FailureClass::Fatal;
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, id::OperationId};
use tenantry_provider::{Former, Observed, Retirement, Spec};
use tenantry_testkit::database::admin;

use crate::contract::Environment as _;
use crate::contract::transfer::ContentEnvironment as _;
use crate::postgres::{Fixture, MODELS, Model, connect, log_in, make};
use crate::postgres_failures::is;
use crate::postgres_fences::fence;
use crate::transfer::Postgres;
use crate::world::{object, spec};

/// Runs SQL as a superuser; `ADMIN` stands for the administrator's role and `MAIN` for the main database.
pub async fn as_superuser(fixture: &Fixture, sql: &str) {
    let options: PgConnectOptions = fixture.url().parse().unwrap();
    let url = tenantry_testkit::database::on_server(&admin().unwrap(), options.get_database().unwrap());
    // Not the word of a grant.
    let sql = sql.replace("ADMIN OPTION", "admin option");
    let sql = sql.replace("ADMIN", options.get_username()).replace("MAIN", options.get_database().unwrap());
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connect(&url).await).await.unwrap();
}

async fn differs(fixture: &Fixture, spec: &Spec) -> Vec<String> {
    match fixture.another().observe(&fixture.world.context(), spec).await.unwrap() {
        Observed::Present { differs, .. } => differs,
        other => vec![format!("{other:?}")],
    }
}

/// Creates a tenant, writes, rotates, fences, exports, loads, repairs and removes it.
async fn whole_life(fixture: Fixture, model: Model) {
    fixture.provider.probe().await.unwrap();
    let (spec, made) = make(&fixture).await;
    assert_eq!(differs(&fixture, &spec).await, [""; 0], "{model:?}");
    let rows = fixture.provider.data().unwrap().scoped(spec.tenant.id);
    rows.insert("projects", object(json!({ "id": "p", "name": "Ours", "description": "" }))).await.unwrap();
    let mut session = log_in(&fixture, &spec, &made.outputs).await.unwrap();
    let count = "SELECT count(*) FROM projects";
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut session).await.unwrap(), 2, "{model:?}");

    let rotation = Spec { operation: OperationId::new(), ..spec.clone() };
    let rotate = fixture.provider.rotate().unwrap();
    let rotated = rotate.rotate(&fixture.world.context(), &rotation, Former::Stays).await.unwrap();
    fixture.world.registry.apply(&rotated.writes);
    let retirement = Retirement {
        tenant: spec.tenant.id,
        resource: spec.resource,
        region: spec.tenant.region.clone(),
        name: spec.name.clone(),
        claim: spec.claim.clone(),
        rotation: rotation.operation,
    };
    let writes = rotate.retire(&*fixture.world.context().rows, &retirement).await.unwrap();
    fixture.world.registry.apply(&writes);

    fence(&fixture, &spec, Some(SuspensionMode::Blocked), 1).await;
    assert!(!matches!(rows.get("projects", "p").await, Ok(Some(_))), "{model:?}: a blocked tenant is read");
    fence(&fixture, &spec, None, 2).await;

    let environment = Postgres(fixture);
    let other = environment.tenant().await;
    let (export, content) = environment.export(&spec).await;
    environment.load(&other, &mut export.source()).await.unwrap();
    assert_eq!(environment.export(&other).await.1, content, "{model:?}");
    let fixture = environment.0;
    assert_eq!(differs(&fixture, &other).await, [""; 0], "{model:?}");

    as_superuser(&fixture, &format!("ALTER ROLE \"{}\" NOLOGIN", other.name)).await;
    assert_eq!(differs(&fixture, &other).await, ["its login role may not log in"], "{model:?}");
    fixture.ensure(&other).await;
    for spec in [spec, other] {
        fixture.provider.remove(&fixture.world.context(), &spec).await.unwrap();
        assert_eq!(
            fixture.provider.observe(&fixture.world.context(), &spec).await.unwrap(),
            Observed::Absent
        );
    }
}

#[tokio::test]
async fn the_whole_life_of_a_tenant_needs_no_superuser() {
    for model in MODELS {
        let Some(fixture) = Fixture::with_plain_administrator(model).await else { return };
        whole_life(fixture, model).await;
    }
}

/// As on managed servers: member of a role that has much but is no superuser, in a database that another role owns.
#[tokio::test]
async fn a_member_of_a_pseudo_superuser_suffices() {
    for model in MODELS {
        let Some(fixture) = Fixture::with_plain_administrator(model).await else { return };
        let cloud = format!("cloud_{}", fixture.app_role());
        let owner = format!("owner_{}", fixture.app_role());
        as_superuser(&fixture, &format!(
            "CREATE ROLE {cloud} NOLOGIN CREATEROLE CREATEDB; GRANT pg_monitor, pg_signal_backend TO {cloud} with admin option;
             GRANT {cloud} TO ADMIN; CREATE ROLE {owner}; ALTER DATABASE MAIN OWNER TO {owner}"
        )).await;
        whole_life(fixture, model).await;
    }
}

/// The failure of a tenant that cannot be created, after which nothing is there and nothing has to be undone.
async fn refused(fixture: &Fixture, model: Model) -> Failure {
    let (spec, context) = (spec(fixture.settings()), fixture.world.context());
    let failure = fixture.provider.ensure(&context, &spec).await.unwrap_err();
    assert_eq!(fixture.provider.observe(&context, &spec).await.unwrap(), Observed::Absent, "{model:?}");
    fixture.provider.remove(&context, &spec).await.unwrap();
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname ^@ 'tenant'";
    assert_eq!(fixture.sql(schemas).await[0].get::<i64, _>(0), 0, "{model:?}: something was created");
    failure
}

#[tokio::test]
async fn each_missing_right_is_named_with_its_statement() {
    for model in MODELS {
        let Some(fixture) = Fixture::with_plain_administrator(model).await else { return };
        let options: PgConnectOptions = fixture.url().parse().unwrap();
        let (role, main) = (options.get_username().to_owned(), options.get_database().unwrap().to_owned());
        as_superuser(
            &fixture,
            "ALTER ROLE ADMIN NOCREATEROLE NOCREATEDB NOBYPASSRLS; REVOKE CREATE ON DATABASE MAIN FROM ADMIN",
        )
        .await;
        let mut statements = vec![
            format!("ALTER ROLE {role} CREATEROLE"),
            format!("GRANT CREATE ON DATABASE {main} TO {role}"),
        ];
        statements.extend(match model {
            Model::Pool => Some(format!("ALTER ROLE {role} BYPASSRLS")),
            Model::Schema => None,
            Model::Database => Some(format!("ALTER ROLE {role} CREATEDB")),
        });
        for failure in [fixture.provider.probe().await.unwrap_err(), refused(&fixture, model).await] {
            is(&failure, Fatal, "not_allowed");
            for statement in &statements {
                assert!(failure.message.contains(&format!("run {statement}")), "{model:?}: {failure}");
            }
            assert_eq!(failure.message.matches(": run ").count(), statements.len(), "{model:?}: {failure}");
        }
        // The statements suffice.
        as_superuser(&fixture, &statements.join(";")).await;
        whole_life(fixture, model).await;
    }
}

#[tokio::test]
async fn rights_on_other_roles_and_connections_are_named() {
    let Some(fixture) = Fixture::with_plain_administrator(Model::Pool).await else { return };
    let app = fixture.app_role().to_owned();
    as_superuser(
        &fixture,
        &format!("CREATE ROLE {app}; CREATE ROLE {app}_tenants; ALTER ROLE ADMIN CONNECTION LIMIT 3"),
    )
    .await;
    let failure = fixture.provider.probe().await.unwrap_err();
    is(&failure, Fatal, "not_allowed");
    assert!(failure.message.contains("CONNECTION LIMIT 8"), "{failure}");
    // Before PostgreSQL 16, CREATEROLE suffices to become a member of any role.
    if fixture.has_membership_options().await {
        let role = fixture.url().parse::<PgConnectOptions>().unwrap().get_username().to_owned();
        for statement in
            [format!("GRANT {app} TO {role}"), format!("GRANT {app}_tenants TO {role} WITH ADMIN OPTION")]
        {
            assert!(failure.message.contains(&statement), "{statement}: {failure}");
            as_superuser(&fixture, &statement).await;
        }
    }
    as_superuser(&fixture, "ALTER ROLE ADMIN CONNECTION LIMIT 8").await;
    fixture.provider.probe().await.unwrap();

    // Another administrator takes over without the privileges of the one that owns the schemas.
    as_superuser(
        &fixture,
        "CREATE ROLE former_ADMIN CREATEROLE; ALTER SCHEMA tenantry OWNER TO former_ADMIN",
    )
    .await;
    let failure = fixture.provider.probe().await.unwrap_err();
    assert!(failure.message.contains("GRANT former_admin_"), "{failure}");
    as_superuser(&fixture, "ALTER SCHEMA tenantry OWNER TO ADMIN; DROP ROLE former_ADMIN").await;
}

/// Without BYPASSRLS, copies and removals would miss the rows of such a table without a word.
#[tokio::test]
async fn forced_row_security_needs_a_right_to_bypass_it() {
    let forced = "CREATE TABLE t (tenant_id text NOT NULL, id text NOT NULL, n integer, PRIMARY KEY (tenant_id, id));
        ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY; CREATE POLICY few ON t USING (true);";
    for model in [Model::Schema, Model::Database] {
        let folder = crate::postgres_failures::Folder::new(&[("1_a.sql", forced)]);
        let Some(mut fixture) = Fixture::with_plain_administrator(model).await else { return };
        let path = folder.path().to_owned();
        fixture.reconfigure(|config| {
            config.migrations = Some(path.clone());
            config.seeds = Some(path);
        });
        let failure = fixture.provider.probe().await.unwrap_err();
        is(&failure, Fatal, "bad_migration");
        assert!(failure.message.contains("table `t` forces row level security"), "{failure}");
        as_superuser(&fixture, "ALTER ROLE ADMIN BYPASSRLS").await;
        fixture.another().probe().await.unwrap();
    }
}
