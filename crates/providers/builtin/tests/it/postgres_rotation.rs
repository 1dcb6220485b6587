//! Password rotation on PostgreSQL as tenants' applications see it: with real passwords, open sessions,
//! fences and interruptions. At most two passwords are valid, and none of a removed tenant.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row};
use tempfile::NamedTempFile;
use tenantry_model::id::OperationId;
use tenantry_model::suspension::Grade;
use tenantry_provider::{Context, Ensured, Former, Observed, Outcome, Provider, Retirement, Rotated, Spec};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::own_postgres::OwnPostgres;

use crate::conform::rival;
use crate::contract::Environment;
use crate::postgres::{MODELS, Place, connect, ensured, make, refused};
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
    fn of(place: &Place, spec: &Spec, role: &str, outputs: &Value) -> Self {
        Self {
            role: role.to_owned(),
            password: place.world.secret(spec, &format!("postgres_password:{role}")),
            database: outputs["database"].as_str().unwrap().to_owned(),
        }
    }

    async fn connect(&self, place: &Place) -> sqlx::Result<PgConnection> {
        let options: PgConnectOptions = place.url().parse().unwrap();
        let options = options.username(&self.role).password(&self.password).database(&self.database);
        options.disable_statement_logging().connect().await
    }

    async fn can_log_in(&self, place: &Place) -> bool {
        match self.connect(place).await {
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
async fn rotate(place: &Place, rotation: &Spec, former: Former, outputs: &Value) -> Login {
    let done = try_rotate(&*place.provider, &place.world.context(), rotation, former).await.unwrap();
    place.world.registry.apply(&done.writes);
    let role = done.outputs["role"].as_str().unwrap().to_owned();
    let login = Login::of(place, rotation, &role, outputs);
    assert!(!format!("{done:?}").contains(&login.password), "the secret is nowhere in clear");
    login
}

async fn retire(place: &Place, rotation: &Spec) {
    let Spec { resource, name, claim, .. } = rotation.clone();
    let (tenant, region) = (rotation.tenant.id, rotation.tenant.region.clone());
    let what = Retirement { tenant, resource, region, name, claim, rotation: rotation.operation };
    let rows = place.world.context().rows;
    let writes = place.provider.rotate().unwrap().retire(&*rows, &what).await.unwrap();
    place.world.registry.apply(&writes);
}

async fn differs(place: &Place, spec: &Spec) -> Vec<String> {
    match place.another().observe(&place.world.context(), spec).await.unwrap() {
        Observed::Present { differs, .. } => differs,
        other => vec![format!("{other:?}")],
    }
}

async fn roles(place: &Place, spec: &Spec) -> Vec<String> {
    let second = second_of(spec);
    let names = format!(
        "SELECT rolname::text FROM pg_roles WHERE rolname IN ('{}', '{second}') ORDER BY 1",
        spec.name
    );
    place.sql(&names).await.iter().map(|row| row.get(0)).collect()
}

fn second_of(spec: &Spec) -> String {
    format!("tenantry_login_{}", spec.resource.suffix())
}

/// A tenant with its first login.
async fn made(place: &Place) -> (Spec, Value, Login) {
    let (spec, Ensured { outputs, .. }) = make(place).await;
    let login = Login::of(place, &spec, outputs["role"].as_str().unwrap(), &outputs);
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
        let place = Place::on(TestDatabase::on(&server.url()).await, model, |_| {});
        let ((spec, outputs, first), (_, _, stranger)) = (made(&place).await, made(&place).await);
        let wrong = Login { password: stranger.password.clone(), ..first.clone() };
        assert!(!wrong.can_log_in(&place).await, "the server asks for no password");
        let (mut former, mut logins) = (first, Vec::new());
        for round in 1..=4 {
            let mut open = former.connect(&place).await.unwrap();
            let rotation = again(&spec);
            let newest = rotate(&place, &rotation, Former::Stays, &outputs).await;
            let mut fresh = newest.connect(&place).await.unwrap();
            assert!(works(&mut fresh).await && works(&mut open).await, "{model:?}, {round}");
            assert!(former.can_log_in(&place).await, "{model:?}, {round}: the former login still works");
            assert!(!logins.iter().any(|login: &Login| login.password == newest.password));
            assert_eq!(differs(&place, &spec).await, [""; 0], "{model:?}, {round}");
            // A repair does not change the logins.
            let again = ensured(&place, &spec).await;
            assert_eq!(again.outputs["role"], *newest.role, "{model:?}");
            assert!(again.writes.is_empty() && former.can_log_in(&place).await, "{model:?}, {round}");

            retire(&place, &rotation).await;
            assert!(!works(&mut open).await, "{model:?}, {round}: the former session is still open");
            assert!(!former.can_log_in(&place).await, "{model:?}, {round}");
            assert!(works(&mut fresh).await && newest.can_log_in(&place).await, "{model:?}, {round}");
            ensured(&place, &spec).await;
            logins.push(former);
            for old in &logins {
                assert!(!old.can_log_in(&place).await, "{model:?}, {round}: {}", old.role);
            }
            assert_eq!(differs(&place, &spec).await, [""; 0], "{model:?}, {round}");
            former = newest;
        }
        assert!(stranger.can_log_in(&place).await, "{model:?}");
        assert_eq!(roles(&place, &spec).await.len(), 2);
        let removed = place.provider.remove(&place.world.context(), &spec).await.unwrap();
        place.world.registry.apply(&removed.writes);
        assert_eq!(removed.receipt["logins"], 2, "{model:?}");
        assert_eq!(roles(&place, &spec).await, [""; 0], "{model:?}");
        assert!(place.sql("SELECT FROM tenantry.logins").await.is_empty());
        let left = place.world.secrets();
        assert!(!left.iter().any(|secret| logins.iter().any(|login| login.password == *secret)));
    }
}

#[tokio::test]
async fn a_leaked_password_is_revoked_at_once() {
    let Some((server, _rules)) = password_server().await else { return };
    for model in MODELS {
        let place = Place::on(TestDatabase::on(&server.url()).await, model, |_| {});
        let (spec, outputs, first) = made(&place).await;
        let mut open = first.connect(&place).await.unwrap();
        let newest = rotate(&place, &again(&spec), Former::Ends, &outputs).await;
        assert!(!works(&mut open).await && !first.can_log_in(&place).await, "{model:?}");
        assert!(newest.can_log_in(&place).await, "{model:?}");
        // If two passwords are valid, both are revoked.
        let third = rotate(&place, &again(&spec), Former::Stays, &outputs).await;
        let [mut a, mut b] = [newest.connect(&place).await.unwrap(), third.connect(&place).await.unwrap()];
        let last = rotate(&place, &again(&spec), Former::Ends, &outputs).await;
        assert!(!works(&mut a).await && !works(&mut b).await, "{model:?}");
        for old in [&first, &newest, &third] {
            assert!(!old.can_log_in(&place).await, "{model:?}: {}", old.role);
        }
        assert!(last.can_log_in(&place).await, "{model:?}");
        assert_eq!(differs(&place, &spec).await, [""; 0], "{model:?}");
        let waiting = place.world.secrets();
        assert_eq!(waiting.len(), 1, "{model:?}: a revoked password is not handed out");
    }
}

#[tokio::test]
async fn an_operation_rotates_once() {
    for model in MODELS {
        let Some(place) = Place::of(model).await else { return };
        let (spec, outputs, _) = made(&place).await;
        let (rotation, context) = (again(&spec), place.world.context());
        let other = place.another();
        let (one, two) = tokio::join!(
            try_rotate(&*place.provider, &context, &rotation, Former::Stays),
            try_rotate(&*other, &context, &rotation, Former::Stays)
        );
        let before = place.snapshot().await;
        let three = try_rotate(&*other, &context, &rotation, Former::Stays).await.unwrap();
        assert_eq!(place.snapshot().await, before, "{model:?}");
        for done in [one.unwrap(), two.unwrap(), three] {
            place.world.registry.apply(&done.writes);
        }
        let role = second_of(&spec);
        assert_eq!(place.world.secrets().len(), 2, "{model:?}: one secret was created");
        assert!(Login::of(&place, &spec, &role, &outputs).can_log_in(&place).await);
        // A retirement of an earlier rotation does nothing.
        let before = place.snapshot().await;
        retire(&place, &again(&spec)).await;
        assert_eq!(place.snapshot().await, before, "{model:?}");

        // An operation ends before the registry has the password: a repair hands it out once.
        for round in 0..2 {
            let interrupted = again(&spec);
            try_rotate(&*other, &context, &interrupted, Former::Ends).await.unwrap();
            let repair = again(&spec);
            let repaired = ensured(&place, &repair).await;
            assert_eq!(repaired.writes.len(), 1, "{model:?}, {round}");
            let role = repaired.outputs["role"].as_str().unwrap();
            assert_eq!(role == spec.name, round == 0, "{model:?}: the logins alternate");
            assert!(ensured(&place, &again(&spec)).await.writes.is_empty(), "{model:?}, {round}");
            assert_eq!(differs(&place, &spec).await, [""; 0], "{model:?}, {round}");
        }
    }
}

#[tokio::test]
async fn a_rotation_keeps_the_fence() {
    for model in MODELS {
        let Some(place) = Place::of(model).await else { return };
        let (spec, outputs, first) = made(&place).await;
        fence(&place, &spec, Some(Grade::Blocked), 1).await;
        let rotation = again(&spec);
        let newest = rotate(&place, &rotation, Former::Stays, &outputs).await;
        assert!(!first.can_log_in(&place).await && !newest.can_log_in(&place).await, "{model:?}");
        assert_eq!(differs(&place, &spec).await, [""; 0], "{model:?}");
        fence(&place, &spec, None, 2).await;
        let mut sessions = [first.connect(&place).await.unwrap(), newest.connect(&place).await.unwrap()];
        for session in &mut sessions {
            assert!(works(session).await, "{model:?}");
        }
        fence(&place, &spec, Some(Grade::ReadOnly), 3).await;
        for session in &mut sessions {
            assert!(!works(session).await, "{model:?}");
            let seen: i64 =
                sqlx::query_scalar("SELECT count(*) FROM workspaces").fetch_one(session).await.unwrap();
            assert_eq!(seen, 1, "{model:?}");
        }
        fence(&place, &spec, Some(Grade::NoLogin), 4).await;
        for session in &mut sessions {
            assert!(session.execute("SELECT 1").await.is_err(), "{model:?}: the session is still open");
        }
        retire(&place, &rotation).await;
        ensured(&place, &spec).await;
        assert_eq!(differs(&place, &spec).await, [""; 0], "{model:?}");
        fence(&place, &spec, None, 5).await;
        assert!(!first.can_log_in(&place).await, "{model:?}: it is retired, with or without a fence");
        assert!(newest.can_log_in(&place).await, "{model:?}");
    }
}

#[tokio::test]
async fn the_second_login_acts_as_its_tenant_only() {
    for model in MODELS {
        let Some(place) = Place::of(model).await else { return };
        let ((spec, outputs, _), (other, ..)) = (made(&place).await, made(&place).await);
        let login = rotate(&place, &again(&spec), Former::Stays, &outputs).await;
        let mut session = login.connect(&place).await.unwrap();
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
            let cells = place.provider.isolation().unwrap().check(&tenants).await.unwrap().cells;
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
            place.sql(&plant).await;
            assert!(check().await.contains(&what.to_owned()), "{model:?}: {plant}");
            place.sql(&clear).await;
        }
        assert_eq!(check().await, [""; 0], "{model:?}");
    }
}

#[tokio::test]
async fn drift_of_logins_is_reported_and_repaired() {
    for model in MODELS {
        let Some(place) = Place::of(model).await else { return };
        let (spec, outputs, first) = made(&place).await;
        let rotation = again(&spec);
        rotate(&place, &rotation, Former::Stays, &outputs).await;
        let second = second_of(&spec);
        let named = async |sql: String, said: &str| {
            place.sql(&sql).await;
            assert_eq!(differs(&place, &spec).await, [said], "{model:?}: {sql}");
            ensured(&place, &spec).await;
            assert_eq!(differs(&place, &spec).await, [""; 0], "{model:?}: {sql}");
        };
        let name = &spec.name;
        named(format!("ALTER ROLE {second} NOLOGIN"), "its login role may not log in").await;
        let early = "its former login role may not log in, but is not retired yet";
        named(format!("ALTER ROLE \"{name}\" NOLOGIN"), early).await;
        assert!(first.can_log_in(&place).await, "{model:?}");
        let unbound = "its second login role has lost the privileges of the first";
        named(format!("REVOKE \"{name}\" FROM {second}"), unbound).await;
        retire(&place, &rotation).await;
        let late = "its former login role may log in, but is retired";
        named(format!("ALTER ROLE \"{name}\" LOGIN"), late).await;
        assert!(!first.can_log_in(&place).await, "{model:?}");
        place.sql(&format!("DROP ROLE {second}")).await;
        let said = differs(&place, &spec).await;
        assert!(said.contains(&"its login role is missing".to_owned()), "{model:?}: {said:?}");
        // A repair creates it again and hands out a new password.
        let repaired = ensured(&place, &again(&spec)).await;
        assert_eq!(
            (repaired.outputs["role"].as_str(), repaired.writes.len()),
            (Some(&*second), 1),
            "{model:?}"
        );
        assert!(Login::of(&place, &spec, &second, &outputs).can_log_in(&place).await, "{model:?}");
        assert_eq!(differs(&place, &spec).await, [""; 0], "{model:?}");
    }
}

#[tokio::test]
async fn rotation_needs_no_superuser_rights() {
    for model in MODELS {
        let Some(place) = Place::with_plain_administrator(model).await else { return };
        let (spec, outputs, first) = made(&place).await;
        let mut former = first;
        for former_s in [Former::Stays, Former::Ends] {
            let mut open = former.connect(&place).await.unwrap();
            let rotation = again(&spec);
            let newest = rotate(&place, &rotation, former_s, &outputs).await;
            retire(&place, &rotation).await;
            assert!(!works(&mut open).await && newest.can_log_in(&place).await, "{model:?}");
            former = newest;
        }
        place.provider.remove(&place.world.context(), &spec).await.unwrap();
        assert_eq!(roles(&place, &spec).await, [""; 0], "{model:?}");
    }
}

#[tokio::test]
async fn absent_and_foreign_tenants_are_not_rotated() {
    for model in MODELS {
        let Some(place) = Place::of(model).await else { return };
        let (spec, ..) = made(&place).await;
        let before = place.snapshot().await;
        let context = place.world.context();
        let fail = async |rotation: &Spec| {
            try_rotate(&*place.provider, &context, rotation, Former::Stays).await.unwrap_err().code
        };
        assert_eq!(fail(&rival(&spec)).await, "name_taken", "{model:?}");
        assert_eq!(fail(&world::spec(place.settings())).await, "not_complete", "{model:?}");
        // A role of another owner has the second login's name.
        place.sql(&format!("CREATE ROLE {}", second_of(&spec))).await;
        assert_eq!(fail(&spec).await, "name_taken", "{model:?}");
        let mut connection = connect(place.url()).await;
        let drop = format!("DROP ROLE {}", second_of(&spec));
        connection.execute(AssertSqlSafe(drop)).await.unwrap();
        retire(&place, &world::spec(place.settings())).await;
        assert_eq!(place.snapshot().await, before, "{model:?}");
    }
}
