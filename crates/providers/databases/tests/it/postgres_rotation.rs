//! Password rotation on PostgreSQL as tenants' applications see it: with real passwords, open sessions,
//! fences and interruptions. At most two passwords are valid, and none of a removed tenant.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row};
use tempfile::NamedTempFile;
use tenantry_model::id::OperationId;
use tenantry_model::suspension::SuspensionMode;
use tenantry_provider::{Context, Ensured, Former, Observed, Outcome, Provider, Retirement, Rotated, Spec};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::own_postgres::OwnPostgres;

use crate::contract::{Environment, rival};
use crate::postgres::{Fixture, MODELS, connect, ensured, make, refused};
use crate::postgres_fences::fence;
use crate::world;

/// An application's login.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Login {
    role: String,
    password: String,
    database: String,
}

impl Login {
    fn of(fixture: &Fixture, spec: &Spec, role: &str, outputs: &Value) -> Self {
        Self {
            role: role.to_owned(),
            password: fixture.world.secret(spec, &format!("postgres_password:{role}")),
            database: outputs["database"].as_str().unwrap().to_owned(),
        }
    }

    async fn connect(&self, fixture: &Fixture) -> sqlx::Result<PgConnection> {
        let options: PgConnectOptions = fixture.url().parse().unwrap();
        let options = options.username(&self.role).password(&self.password).database(&self.database);
        options.disable_statement_logging().connect().await
    }

    async fn can_log_in(&self, fixture: &Fixture) -> bool {
        match self.connect(fixture).await {
            Ok(mut session) => works(&mut session).await,
            Err(_) => false,
        }
    }
}

/// Whether a session can read and write the tenant's rows.
async fn works(session: &mut PgConnection) -> bool {
    let written = session.execute("UPDATE workspaces SET name = name || '!'").await;
    written.is_ok_and(|done| done.rows_affected() == 1)
}

/// The same spec in another operation.
fn again(spec: &Spec) -> Spec {
    Spec { operation: OperationId::new(), ..spec.clone() }
}

async fn try_rotate(
    provider: &dyn Provider,
    context: &Context,
    rotation: &Spec,
    former: Former,
) -> Result<Rotated, tenantry_model::Failure> {
    provider.rotate().unwrap().rotate(context, rotation, former).await
}

/// Rotates and returns the login that was handed out.
async fn rotate(fixture: &Fixture, rotation: &Spec, former: Former, outputs: &Value) -> Login {
    let done = try_rotate(&*fixture.provider, &fixture.world.context(), rotation, former).await.unwrap();
    fixture.world.registry.apply(&done.writes);
    let role = done.outputs["role"].as_str().unwrap().to_owned();
    let login = Login::of(fixture, rotation, &role, outputs);
    assert!(!format!("{done:?}").contains(&login.password), "the secret is nowhere in clear");
    login
}

async fn retire(fixture: &Fixture, rotation: &Spec) {
    let Spec { resource, name, claim, .. } = rotation.clone();
    let (tenant, region) = (rotation.tenant.id, rotation.tenant.region.clone());
    let what = Retirement { tenant, resource, region, name, claim, rotation: rotation.operation };
    let rows = fixture.world.context().rows;
    let writes = fixture.provider.rotate().unwrap().retire(&*rows, &what).await.unwrap();
    fixture.world.registry.apply(&writes);
}

async fn differs(fixture: &Fixture, spec: &Spec) -> Vec<String> {
    match fixture.another().observe(&fixture.world.context(), spec).await.unwrap() {
        Observed::Present { differs, .. } => differs,
        other => vec![format!("{other:?}")],
    }
}

async fn roles(fixture: &Fixture, spec: &Spec) -> Vec<String> {
    let second = second_of(spec);
    let names = format!(
        "SELECT rolname::text FROM pg_roles WHERE rolname IN ('{}', '{second}') ORDER BY 1",
        spec.name
    );
    fixture.sql(&names).await.iter().map(|row| row.get(0)).collect()
}

fn second_of(spec: &Spec) -> String {
    format!("tenantry_login_{}", spec.resource.suffix())
}

/// A tenant with its first login.
async fn made(fixture: &Fixture) -> (Spec, Value, Login) {
    let (spec, Ensured { outputs, .. }) = make(fixture).await;
    let login = Login::of(fixture, &spec, outputs["role"].as_str().unwrap(), &outputs);
    (spec, outputs, login)
}

/// A server that asks every role but its superuser for a password.
async fn password_server() -> Option<(OwnPostgres, NamedTempFile)> {
    let mut rules = NamedTempFile::new().unwrap();
    rules.write_all(b"host all postgres all trust\nhost all all all scram-sha-256\n").unwrap();
    std::fs::set_permissions(rules.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = format!("hba_file={}", rules.path().display());
    Some((OwnPostgres::start(&["fsync=off", &file]).await?, rules))
}

#[tokio::test]
async fn both_passwords_are_valid_until_the_former_is_retired() {
    let Some((server, _rules)) = password_server().await else { return };
    for model in MODELS {
        let fixture = Fixture::on(TestDatabase::on(&server.url()).await, model, |_| {});
        let ((spec, outputs, first), (_, _, stranger)) = (made(&fixture).await, made(&fixture).await);
        let wrong = Login { password: stranger.password.clone(), ..first.clone() };
        assert!(!wrong.can_log_in(&fixture).await, "the server asks for no password");
        let (mut former, mut logins) = (first, Vec::new());
        for round in 1..=4 {
            let mut open = former.connect(&fixture).await.unwrap();
            let rotation = again(&spec);
            let newest = rotate(&fixture, &rotation, Former::Stays, &outputs).await;
            let mut fresh = newest.connect(&fixture).await.unwrap();
            assert!(works(&mut fresh).await && works(&mut open).await, "{model:?}, {round}");
            assert!(former.can_log_in(&fixture).await, "{model:?}, {round}: the former login still works");
            assert!(!logins.iter().any(|login: &Login| login.password == newest.password));
            assert_eq!(differs(&fixture, &spec).await, [""; 0], "{model:?}, {round}");
            // A repair does not change the logins.
            let again = ensured(&fixture, &spec).await;
            assert_eq!(again.outputs["role"], *newest.role, "{model:?}");
            assert!(again.writes.is_empty() && former.can_log_in(&fixture).await, "{model:?}, {round}");

            retire(&fixture, &rotation).await;
            assert!(!works(&mut open).await, "{model:?}, {round}: the former session is still open");
            assert!(!former.can_log_in(&fixture).await, "{model:?}, {round}");
            assert!(works(&mut fresh).await && newest.can_log_in(&fixture).await, "{model:?}, {round}");
            ensured(&fixture, &spec).await;
            logins.push(former);
            for old in &logins {
                assert!(!old.can_log_in(&fixture).await, "{model:?}, {round}: {}", old.role);
            }
            assert_eq!(differs(&fixture, &spec).await, [""; 0], "{model:?}, {round}");
            former = newest;
        }
        assert!(stranger.can_log_in(&fixture).await, "{model:?}");
        assert_eq!(roles(&fixture, &spec).await.len(), 2);
        let removed = fixture.provider.remove(&fixture.world.context(), &spec).await.unwrap();
        fixture.world.registry.apply(&removed.writes);
        assert_eq!(removed.receipt["logins"], 2, "{model:?}");
        assert_eq!(roles(&fixture, &spec).await, [""; 0], "{model:?}");
        assert!(fixture.sql("SELECT FROM tenantry.logins").await.is_empty());
        let left = fixture.world.secrets();
        assert!(!left.iter().any(|secret| logins.iter().any(|login| login.password == *secret)));
    }
}

#[tokio::test]
async fn a_leaked_password_is_revoked_at_once() {
    let Some((server, _rules)) = password_server().await else { return };
    for model in MODELS {
        let fixture = Fixture::on(TestDatabase::on(&server.url()).await, model, |_| {});
        let (spec, outputs, first) = made(&fixture).await;
        let mut open = first.connect(&fixture).await.unwrap();
        let newest = rotate(&fixture, &again(&spec), Former::Ends, &outputs).await;
        assert!(!works(&mut open).await && !first.can_log_in(&fixture).await, "{model:?}");
        assert!(newest.can_log_in(&fixture).await, "{model:?}");
        // If two passwords are valid, both are revoked.
        let third = rotate(&fixture, &again(&spec), Former::Stays, &outputs).await;
        let [mut a, mut b] =
            [newest.connect(&fixture).await.unwrap(), third.connect(&fixture).await.unwrap()];
        let last = rotate(&fixture, &again(&spec), Former::Ends, &outputs).await;
        assert!(!works(&mut a).await && !works(&mut b).await, "{model:?}");
        for old in [&first, &newest, &third] {
            assert!(!old.can_log_in(&fixture).await, "{model:?}: {}", old.role);
        }
        assert!(last.can_log_in(&fixture).await, "{model:?}");
        assert_eq!(differs(&fixture, &spec).await, [""; 0], "{model:?}");
        let waiting = fixture.world.secrets();
        assert_eq!(waiting.len(), 1, "{model:?}: a revoked password is not handed out");
    }
}

#[tokio::test]
async fn an_operation_rotates_once() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let (spec, outputs, _) = made(&fixture).await;
        let (rotation, context) = (again(&spec), fixture.world.context());
        let other = fixture.another();
        let (one, two) = tokio::join!(
            try_rotate(&*fixture.provider, &context, &rotation, Former::Stays),
            try_rotate(&*other, &context, &rotation, Former::Stays)
        );
        let before = fixture.snapshot().await;
        let three = try_rotate(&*other, &context, &rotation, Former::Stays).await.unwrap();
        assert_eq!(fixture.snapshot().await, before, "{model:?}");
        for done in [one.unwrap(), two.unwrap(), three] {
            fixture.world.registry.apply(&done.writes);
        }
        let role = second_of(&spec);
        assert_eq!(fixture.world.secrets().len(), 2, "{model:?}: one secret was created");
        assert!(Login::of(&fixture, &spec, &role, &outputs).can_log_in(&fixture).await);
        // A retirement of an earlier rotation does nothing.
        let before = fixture.snapshot().await;
        retire(&fixture, &again(&spec)).await;
        assert_eq!(fixture.snapshot().await, before, "{model:?}");

        // An operation ends before the registry has the password: a repair hands it out once.
        for round in 0..2 {
            let interrupted = again(&spec);
            try_rotate(&*other, &context, &interrupted, Former::Ends).await.unwrap();
            let repair = again(&spec);
            let repaired = ensured(&fixture, &repair).await;
            assert_eq!(repaired.writes.len(), 1, "{model:?}, {round}");
            let role = repaired.outputs["role"].as_str().unwrap();
            assert_eq!(role == spec.name, round == 0, "{model:?}: the logins alternate");
            assert!(ensured(&fixture, &again(&spec)).await.writes.is_empty(), "{model:?}, {round}");
            assert_eq!(differs(&fixture, &spec).await, [""; 0], "{model:?}, {round}");
        }
    }
}

#[tokio::test]
async fn a_rotation_keeps_the_fence() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let (spec, outputs, first) = made(&fixture).await;
        fence(&fixture, &spec, Some(SuspensionMode::Blocked), 1).await;
        let rotation = again(&spec);
        let newest = rotate(&fixture, &rotation, Former::Stays, &outputs).await;
        assert!(!first.can_log_in(&fixture).await && !newest.can_log_in(&fixture).await, "{model:?}");
        assert_eq!(differs(&fixture, &spec).await, [""; 0], "{model:?}");
        fence(&fixture, &spec, None, 2).await;
        let mut sessions = [first.connect(&fixture).await.unwrap(), newest.connect(&fixture).await.unwrap()];
        for session in &mut sessions {
            assert!(works(session).await, "{model:?}");
        }
        fence(&fixture, &spec, Some(SuspensionMode::ReadOnly), 3).await;
        for session in &mut sessions {
            assert!(!works(session).await, "{model:?}");
            let seen: i64 =
                sqlx::query_scalar("SELECT count(*) FROM workspaces").fetch_one(session).await.unwrap();
            assert_eq!(seen, 1, "{model:?}");
        }
        fence(&fixture, &spec, Some(SuspensionMode::NoLogin), 4).await;
        for session in &mut sessions {
            assert!(session.execute("SELECT 1").await.is_err(), "{model:?}: the session is still open");
        }
        retire(&fixture, &rotation).await;
        ensured(&fixture, &spec).await;
        assert_eq!(differs(&fixture, &spec).await, [""; 0], "{model:?}");
        fence(&fixture, &spec, None, 5).await;
        assert!(!first.can_log_in(&fixture).await, "{model:?}: it is retired, with or without a fence");
        assert!(newest.can_log_in(&fixture).await, "{model:?}");
    }
}

#[tokio::test]
async fn the_second_login_acts_as_its_tenant_only() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let ((spec, outputs, _), (other, ..)) = (made(&fixture).await, made(&fixture).await);
        let login = rotate(&fixture, &again(&spec), Former::Stays, &outputs).await;
        let mut session = login.connect(&fixture).await.unwrap();
        let acts_as: String =
            sqlx::query_scalar("SELECT current_user::text").fetch_one(&mut session).await.unwrap();
        assert_eq!(acts_as, spec.name, "objects that it creates are the tenant's");
        let name_it = format!("SET app.current_tenant_id = '{}'", other.tenant.id);
        for set in
            [&*name_it, "RESET ROLE", "SET ROLE NONE", "SET SESSION AUTHORIZATION DEFAULT", "DISCARD ALL"]
        {
            session.execute(AssertSqlSafe(set)).await.unwrap();
            let seen = sqlx::query_scalar("SELECT DISTINCT tenant_id FROM workspaces").persistent(false);
            let seen: Vec<String> = seen.fetch_all(&mut session).await.unwrap();
            assert_eq!(seen, [spec.tenant.id.to_string()], "{model:?}: {set}");
        }
        for role in [other.name.as_str(), "postgres"] {
            refused(&mut session, &format!("SET ROLE \"{role}\""), "42501").await;
        }
        refused(&mut session, "CREATE TABLE mine (x int)", "42501").await;

        // The isolation check agrees, and finds ways around it.
        let check = async || {
            let tenants = [spec.tenant.id, other.tenant.id];
            let cells = fixture.provider.isolation().unwrap().check(&tenants).await.unwrap().cells;
            cells
                .into_iter()
                .filter(|cell| cell.outcome == Outcome::Leak)
                .map(|cell| cell.what)
                .collect::<Vec<_>>()
        };
        assert_eq!(check().await, [""; 0], "{model:?}");
        let second = second_of(&spec);
        let leaks = [
            (
                format!("ALTER ROLE {second} BYPASSRLS"),
                format!("ALTER ROLE {second} NOBYPASSRLS"),
                "role_attributes",
            ),
            (
                format!("GRANT \"{}\" TO {second}", other.name),
                format!("REVOKE \"{}\" FROM {second}", other.name),
                "role_membership",
            ),
            (
                format!("GRANT {second} TO \"{}\"", other.name),
                format!("REVOKE {second} FROM \"{}\"", other.name),
                "role_membership",
            ),
        ];
        for (plant, clear, what) in leaks {
            fixture.sql(&plant).await;
            assert!(check().await.contains(&what.to_owned()), "{model:?}: {plant}");
            fixture.sql(&clear).await;
        }
        assert_eq!(check().await, [""; 0], "{model:?}");
    }
}

#[tokio::test]
async fn drift_of_logins_is_reported_and_repaired() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let (spec, outputs, first) = made(&fixture).await;
        let rotation = again(&spec);
        rotate(&fixture, &rotation, Former::Stays, &outputs).await;
        let second = second_of(&spec);
        let named = async |sql: String, said: &str| {
            fixture.sql(&sql).await;
            assert_eq!(differs(&fixture, &spec).await, [said], "{model:?}: {sql}");
            ensured(&fixture, &spec).await;
            assert_eq!(differs(&fixture, &spec).await, [""; 0], "{model:?}: {sql}");
        };
        let name = &spec.name;
        named(format!("ALTER ROLE {second} NOLOGIN"), "its login role may not log in").await;
        let early = "its former login role may not log in, but is not retired yet";
        named(format!("ALTER ROLE \"{name}\" NOLOGIN"), early).await;
        assert!(first.can_log_in(&fixture).await, "{model:?}");
        let unbound = "its second login role has lost the privileges of the first";
        named(format!("REVOKE \"{name}\" FROM {second}"), unbound).await;
        if fixture.has_membership_options().await {
            for option in ["INHERIT", "SET"] {
                named(format!("GRANT \"{name}\" TO {second} WITH {option} FALSE"), unbound).await;
            }
        }
        retire(&fixture, &rotation).await;
        let late = "its former login role may log in, but is retired";
        named(format!("ALTER ROLE \"{name}\" LOGIN"), late).await;
        assert!(!first.can_log_in(&fixture).await, "{model:?}");
        fixture.sql(&format!("DROP ROLE {second}")).await;
        let said = differs(&fixture, &spec).await;
        assert!(said.contains(&"its login role is missing".to_owned()), "{model:?}: {said:?}");
        // A repair creates it again and hands out a new password.
        let repaired = ensured(&fixture, &again(&spec)).await;
        assert_eq!(
            (repaired.outputs["role"].as_str(), repaired.writes.len()),
            (Some(&*second), 1),
            "{model:?}"
        );
        assert!(Login::of(&fixture, &spec, &second, &outputs).can_log_in(&fixture).await, "{model:?}");
        assert_eq!(differs(&fixture, &spec).await, [""; 0], "{model:?}");
    }
}

#[tokio::test]
async fn rotation_needs_no_superuser_rights() {
    for model in MODELS {
        let Some(mut fixture) = Fixture::with_plain_administrator(model).await else { return };
        // How the server makes the creator of a role its member.
        let settings: &[&str] =
            if fixture.has_membership_options().await { &["", "set", "inherit"] } else { &[""] };
        for setting in settings {
            if !setting.is_empty() {
                fixture
                    .sql(&format!("ALTER ROLE CURRENT_USER SET createrole_self_grant = '{setting}'"))
                    .await;
            }
            fixture.reconfigure(|_| {});
            let (spec, outputs, first) = made(&fixture).await;
            let rows = fixture.provider.data().unwrap().scoped(spec.tenant.id);
            assert_eq!(rows.list("tasks", 10, None).await.unwrap().rows.len(), 3, "{model:?}: {setting}");
            let mut former = first;
            for former_s in [Former::Stays, Former::Ends] {
                let mut open = former.connect(&fixture).await.unwrap();
                let rotation = again(&spec);
                let newest = rotate(&fixture, &rotation, former_s, &outputs).await;
                retire(&fixture, &rotation).await;
                let ended = !works(&mut open).await;
                assert!(ended && newest.can_log_in(&fixture).await, "{model:?}: {setting}");
                former = newest;
            }
            fixture.provider.remove(&fixture.world.context(), &spec).await.unwrap();
            assert_eq!(roles(&fixture, &spec).await, [""; 0], "{model:?}: {setting}");
        }
    }
}

#[tokio::test]
async fn absent_and_foreign_tenants_are_not_rotated() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let (spec, ..) = made(&fixture).await;
        let before = fixture.snapshot().await;
        let context = fixture.world.context();
        let fail = async |rotation: &Spec| {
            try_rotate(&*fixture.provider, &context, rotation, Former::Stays).await.unwrap_err().code
        };
        assert_eq!(fail(&rival(&spec)).await, "name_taken", "{model:?}");
        assert_eq!(fail(&world::spec(fixture.settings())).await, "not_complete", "{model:?}");
        // A role of another owner has the second login's name.
        fixture.sql(&format!("CREATE ROLE {}", second_of(&spec))).await;
        assert_eq!(fail(&spec).await, "name_taken", "{model:?}");
        let mut connection = connect(fixture.url()).await;
        let drop = format!("DROP ROLE {}", second_of(&spec));
        connection.execute(AssertSqlSafe(drop)).await.unwrap();
        retire(&fixture, &world::spec(fixture.settings())).await;
        assert_eq!(fixture.snapshot().await, before, "{model:?}");
    }
}
