//! Drift on PostgreSQL: `observe` reports it, `ensure` repairs what it can, and the rest is still reported. A
//! second process without any state reports the same.

use tenantry_model::suspension::SuspensionMode;
use tenantry_provider::{Observed, Provider, Spec};

use crate::postgres::{Fixture, MODELS, Model, connect, ensured, make};
use crate::postgres_fences::fence;
use sqlx::AssertSqlSafe;

/// Where the change is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum At {
    Main,
    Tables,
}

pub async fn differs(provider: &dyn Provider, fixture: &Fixture, spec: &Spec) -> Vec<String> {
    match provider.observe(&fixture.world.context(), spec).await.unwrap() {
        Observed::Present { differs, .. } => differs,
        other => vec![format!("{other:?}")],
    }
}

/// Runs statements as a superuser where the tenant's tables are; `NAME` stands for the tenant's name and
/// `APP` for the application role.
pub async fn harm(fixture: &Fixture, spec: &Spec, model: Model, at: At, sql: &str) {
    let mut url = fixture.url().to_owned();
    if (model, at) == (Model::Database, At::Tables) {
        url = format!("{}/{}", url.rsplit_once('/').unwrap().0, spec.name);
    }
    let schema = match model {
        Model::Pool => "tenantry_pool".to_owned(),
        Model::Schema => format!("\"{}\"", spec.name),
        Model::Database => "public".to_owned(),
    };
    let sql = sql.replace("NAME", &format!("\"{}\"", spec.name)).replace("APP", fixture.app_role());
    let mut connection = connect(&url).await;
    let sql = if at == At::Tables { format!("SET search_path = {schema}; {sql}") } else { sql };
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

use At::{Main, Tables};
use Model::{Database, Pool, Schema};

const OWN: &[Model] = &[Schema, Database];

#[tokio::test]
async fn repairable_drift_is_reported_and_repaired() {
    let harms: [(&[Model], At, &str, &str); 9] = [
        (&MODELS, Main, "DROP OWNED BY NAME; DROP ROLE NAME", "its login role is missing"),
        (&MODELS, Main, "ALTER ROLE NAME NOLOGIN", "its login role may not log in"),
        (OWN, Tables, "REVOKE INSERT ON tasks FROM NAME", "has lost INSERT on table `tasks`"),
        (OWN, Tables, "REVOKE USAGE ON SCHEMA public, NAME FROM NAME", "may not use the schema"),
        (&[Database], Main, "REVOKE CONNECT ON DATABASE NAME FROM NAME", "may not connect to the database"),
        (&[Pool], Main, "REVOKE APP_tenants FROM NAME", "may not use the schema"),
        (&[Pool], Tables, "REVOKE SELECT ON tasks FROM APP_tenants", "has lost SELECT on table `tasks`"),
        (&[Pool], Tables, "DROP POLICY tenantry_select ON tasks", "policy `tenantry_select` is missing"),
        (&[Pool], Tables, "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY", "row level security"),
    ];
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let (spec, _) = make(&fixture).await;
        assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, [""; 0], "{model:?}");
        let mut harms = harms.to_vec();
        if fixture.has_membership_options().await {
            let sql = "GRANT APP_tenants TO NAME WITH INHERIT FALSE";
            harms.push((&[Pool], Main, sql, "may not use the schema"));
        }
        for (models, at, sql, word) in harms {
            if !models.contains(&model) {
                continue;
            }
            let sql = match model {
                Schema => sql.replace("public, ", ""),
                _ => sql.replace("public, NAME FROM", "public FROM"),
            };
            if sql.starts_with("DROP OWNED") {
                harm(&fixture, &spec, model, Tables, "DROP OWNED BY NAME").await;
            }
            harm(&fixture, &spec, model, at, &sql).await;
            for provider in [&*fixture.provider, &*fixture.another()] {
                let said = differs(provider, &fixture, &spec).await;
                assert!(said.iter().any(|said| said.contains(word)), "{model:?}, {sql}: {said:?}");
            }
            ensured(&fixture, &spec).await;
            assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, [""; 0], "{model:?}, {sql}");
        }
    }
}

#[tokio::test]
async fn other_drift_is_reported_before_and_after_a_repair() {
    let harms = [
        ("DROP TABLE tasks CASCADE", "table `tasks` is missing"),
        ("ALTER TABLE projects DROP COLUMN name", "table `projects`, column `name` is missing"),
        ("ALTER TABLE projects ADD COLUMN colour text", "column `colour` was added outside the migrations"),
    ];
    for (sql, word) in harms {
        for model in MODELS {
            let Some(fixture) = Fixture::of(model).await else { return };
            let (spec, _) = make(&fixture).await;
            harm(&fixture, &spec, model, Tables, sql).await;
            let before = differs(&*fixture.another(), &fixture, &spec).await;
            assert_eq!(before.len(), 1, "{model:?}: {before:?}");
            assert!(before[0].contains(word), "{model:?}: {before:?}");
            ensured(&fixture, &spec).await;
            assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, before, "{model:?}");
        }
    }
}

#[tokio::test]
async fn a_dropped_schema_or_database_is_reported_and_recreated() {
    for model in [Schema, Database] {
        let Some(fixture) = Fixture::of(model).await else { return };
        let (spec, _) = make(&fixture).await;
        let drop = if model == Schema { "DROP SCHEMA NAME CASCADE" } else { "DROP DATABASE NAME" };
        harm(&fixture, &spec, model, Main, drop).await;
        let said = differs(&*fixture.provider, &fixture, &spec).await;
        assert_eq!(said, ["its schema or database is missing, with all its rows"], "{model:?}");
        ensured(&fixture, &spec).await;
        assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, [""; 0], "{model:?}");
    }
}

#[tokio::test]
async fn a_broken_fence_is_reported() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let (spec, _) = make(&fixture).await;
        fence(&fixture, &spec, Some(SuspensionMode::Blocked), 2).await;
        assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, [""; 0], "{model:?}");
        harm(&fixture, &spec, model, Main, "ALTER ROLE NAME LOGIN").await;
        let said = differs(&*fixture.provider, &fixture, &spec).await;
        assert_eq!(said, ["its login role may log in despite its fence"], "{model:?}");
        if model != Pool {
            harm(&fixture, &spec, model, Tables, "GRANT UPDATE ON tasks TO NAME").await;
            let said = differs(&*fixture.provider, &fixture, &spec).await;
            assert!(said[1].contains("write to table `tasks` despite its fence"), "{said:?}");
        }
        ensured(&fixture, &spec).await;
        assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, [""; 0], "{model:?}");
    }
}
