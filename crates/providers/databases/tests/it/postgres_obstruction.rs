//! What every login may hold, such as advisory locks, locks on the tables that it writes, and changes of its own role that it
//! does not commit, keeps neither Tenantry nor other tenants from their work.

use sqlx::postgres::{PgAdvisoryLock, PgAdvisoryLockKey, PgConnectOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _};
use tenantry_model::suspension::SuspensionMode;
use tenantry_provider::{Ensured, Observed, Spec};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::own_postgres::OwnPostgres;
use tokio::sync::mpsc;

use crate::contract::Environment as _;
use crate::postgres::{Fixture, MODELS, Model, connect, ensured, log_in, login, make};
use crate::postgres_failures::{Folder, TABLE, bare};
use crate::postgres_fences::fence;

/// A session of the tenant's login in the main database, where Tenantry takes its locks.
async fn in_main(fixture: &Fixture, spec: &Spec, made: &Ensured) -> PgConnection {
    let main: PgConnectOptions = fixture.url().parse().unwrap();
    let options = login(fixture, spec, &made.outputs).database(main.get_database().unwrap());
    options.connect().await.unwrap()
}

/// The advisory lock under which Tenantry changes what the tenant has.
fn lock_of(fixture: &Fixture, spec: &Spec) -> PgAdvisoryLock {
    let isolation = match fixture.model {
        Model::Pool => "pool",
        Model::Schema => "schema",
        Model::Database => "database",
    };
    PgAdvisoryLock::new(format!("tenantry {isolation} {}", spec.name))
}

/// Sessions of the tenant's login: one has this advisory lock, the others have changed their role and not committed.
async fn obstruct(fixture: &Fixture, spec: &Spec, made: &Ensured, lock: PgAdvisoryLock) -> [PgConnection; 3] {
    let PgAdvisoryLockKey::BigInt(key) = *lock.key() else { unreachable!() };
    let hold = format!("SELECT pg_advisory_lock({key})");
    let mut sessions = [
        in_main(fixture, spec, made).await,
        in_main(fixture, spec, made).await,
        log_in(fixture, spec, &made.outputs).await.unwrap(),
    ];
    for (session, sql) in sessions.iter_mut().zip([
        &*hold,
        "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'x'",
        "BEGIN; ALTER ROLE CURRENT_USER SET work_mem = '1MB'",
    ]) {
        session.execute(AssertSqlSafe(sql)).await.expect(sql);
    }
    sessions
}

async fn is_removed(fixture: &Fixture, spec: &Spec) {
    let context = fixture.world.context();
    fixture.provider.remove(&context, spec).await.unwrap();
    let seen = fixture.provider.observe(&context, spec).await.unwrap();
    assert!(matches!(seen, Observed::Absent), "{:?}: {seen:?}", fixture.model);
}

#[tokio::test]
async fn a_tenant_cannot_hold_up_its_suspension_or_removal() {
    for model in MODELS {
        let Some(fixture) = Fixture::with_plain_administrator(model).await else { return };
        let (spec, made) = make(&fixture).await;
        let held = obstruct(&fixture, &spec, &made, lock_of(&fixture, &spec)).await;
        fence(&fixture, &spec, Some(SuspensionMode::NoLogin), 1).await;
        for mut session in held {
            assert!(session.ping().await.is_err(), "{model:?}: a session is still open");
        }
        assert!(log_in(&fixture, &spec, &made.outputs).await.is_err(), "{model:?}");
        fence(&fixture, &spec, None, 2).await;
        let _held = obstruct(&fixture, &spec, &made, lock_of(&fixture, &spec)).await;
        is_removed(&fixture, &spec).await;
    }
}

/// Changes its own role again and again, and leaves each change open for a while, until it may not log in any more.
async fn change_itself(options: PgConnectOptions, change: String, begun: mpsc::Sender<()>) {
    while let Ok(mut session) = options.connect().await {
        while session.execute(AssertSqlSafe(change.clone())).await.is_ok() {
            let _ = begun.try_send(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_changes_itself_again_and_again_is_suspended() {
    for model in MODELS {
        let Some(fixture) = Fixture::with_plain_administrator(model).await else { return };
        let (spec, made) = make(&fixture).await;
        // The password stays, so that it can log in again.
        let password = fixture.world.secret(&spec, &format!("postgres_password:{}", spec.name));
        let change =
            format!("BEGIN; ALTER ROLE CURRENT_USER PASSWORD '{password}'; SELECT pg_sleep(0.05); COMMIT");
        let options = login(&fixture, &spec, &made.outputs);
        let (begun, mut begins) = mpsc::channel(1);
        let loops: Vec<_> = (0..2)
            .map(|_| tokio::spawn(change_itself(options.clone(), change.clone(), begun.clone())))
            .collect();
        begins.recv().await.unwrap();
        fence(&fixture, &spec, Some(SuspensionMode::NoLogin), 1).await;
        for task in loops {
            task.await.unwrap();
        }
        is_removed(&fixture, &spec).await;
    }
}

/// Every login may connect to the main database and knows the names of Tenantry's locks.
#[tokio::test]
async fn a_new_process_starts_while_a_tenant_has_its_locks() {
    for model in MODELS {
        let Some(fixture) = Fixture::with_plain_administrator(model).await else { return };
        let (spec, made) = make(&fixture).await;
        for name in ["directory", "pool", "template"] {
            let lock = PgAdvisoryLock::new(format!("tenantry {name}"));
            let _held = obstruct(&fixture, &spec, &made, lock).await;
            fixture.another().probe().await.unwrap();
        }
        is_removed(&fixture, &spec).await;
    }
}

#[tokio::test]
async fn a_lock_on_shared_tables_stops_no_other_tenant() {
    let Some(fixture) = Fixture::with_plain_administrator(Model::Pool).await else { return };
    fixture.provider.start().await.unwrap();
    let ((spec, made), (other, others)) = (make(&fixture).await, make(&fixture).await);
    let mut neighbour = log_in(&fixture, &other, &others.outputs).await.unwrap();
    let lock = async || {
        let mut hostile = log_in(&fixture, &spec, &made.outputs).await.unwrap();
        hostile.execute("BEGIN; LOCK TABLE workspaces, projects, tasks").await.unwrap();
        hostile
    };
    let mut hostile = lock().await;
    // Sign-ups go on.
    let signed_up = crate::world::spec(fixture.settings());
    ensured(&fixture, &signed_up).await;
    assert!(hostile.ping().await.is_err());
    let mut hostile = lock().await;
    neighbour.execute("UPDATE workspaces SET name = 'x'").await.unwrap();
    assert!(hostile.ping().await.is_err());
    // Its own sessions may wait for each other.
    let mut hostile = lock().await;
    let mut second = log_in(&fixture, &spec, &made.outputs).await.unwrap();
    second.execute("SET lock_timeout = '7s'").await.unwrap();
    assert!(second.execute("UPDATE workspaces SET name = 'x'").await.is_err());
    hostile.ping().await.unwrap();
}

/// To wait for a lock is no right to have its holder ended.
#[tokio::test]
async fn a_tenant_that_waits_for_a_lock_ends_no_other_tenants_session() {
    let Some(fixture) = Fixture::with_plain_administrator(Model::Pool).await else { return };
    fixture.provider.start().await.unwrap();
    let [(one, ones), (two, twos), (hostile, hostiles)] =
        [make(&fixture).await, make(&fixture).await, make(&fixture).await];
    let mut reader = log_in(&fixture, &one, &ones.outputs).await.unwrap();
    reader.execute("BEGIN; SELECT FROM workspaces; SELECT pg_advisory_lock(7)").await.unwrap();
    let options = login(&fixture, &hostile, &hostiles.outputs);
    let wait = |sql: &'static str| {
        let options = options.clone();
        tokio::spawn(async move { options.connect().await.unwrap().execute(sql).await.map(drop) })
    };
    let waiting = [wait("BEGIN; LOCK TABLE workspaces"), wait("SELECT pg_advisory_lock(7)")];
    // Longer than a session may keep others waiting.
    let long = "SELECT count(*) FROM pg_sleep(0.2), pg_locks WHERE NOT granted AND locktype IN ('relation', 'advisory')
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND waitstart < clock_timestamp() - interval '7 s'";
    while fixture.sql(long).await[0].get::<i64, _>(0) < 2 {
        assert!(waiting.iter().all(|task| !task.is_finished()));
    }
    reader.ping().await.unwrap();
    // This one waits behind the hostile tenant, whose session is ended for it.
    let mut writer = log_in(&fixture, &two, &twos.outputs).await.unwrap();
    writer.execute("UPDATE workspaces SET name = 'x'").await.unwrap();
    reader.ping().await.unwrap();
    let [lock, advisory] = waiting;
    assert!(lock.await.unwrap().is_err());
    reader.execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    advisory.await.unwrap().unwrap();
}

/// A tenant can grant other roles what it owns, and leave the grant uncommitted.
#[tokio::test]
async fn grants_of_another_tenant_hold_up_no_removal() {
    for model in MODELS {
        let Some(fixture) = Fixture::with_plain_administrator(model).await else { return };
        let (hostile, made) = make(&fixture).await;
        for open in [
            "BEGIN; CREATE TEMP TABLE mine (); GRANT SELECT ON mine TO VICTIM",
            "CREATE TEMP TABLE mine (); GRANT SELECT ON mine TO VICTIM; BEGIN; GRANT INSERT ON mine TO VICTIM",
            "SELECT lo_create(7); GRANT SELECT ON LARGE OBJECT 7 TO VICTIM; BEGIN; GRANT UPDATE ON LARGE OBJECT 7 TO VICTIM",
        ] {
            let (victim, _) = make(&fixture).await;
            let mut session = in_main(&fixture, &hostile, &made).await;
            let open = open.replace("VICTIM", &format!("\"{}\"", victim.name));
            for sql in open.split("; ") {
                session.execute(AssertSqlSafe(sql)).await.expect(sql);
            }
            is_removed(&fixture, &victim).await;
        }
        is_removed(&fixture, &hostile).await;
    }
}

/// The server drops a database when every session has noticed, also those in other databases.
#[tokio::test]
async fn a_copy_without_data_holds_up_no_removal_of_a_database() {
    let Some(fixture) = Fixture::with_plain_administrator(Model::Database).await else { return };
    let ((hostile, made), (victim, _)) = (make(&fixture).await, make(&fixture).await);
    let mut session = log_in(&fixture, &hostile, &made.outputs).await.unwrap();
    session.execute("CREATE TEMP TABLE copied (a int)").await.unwrap();
    let copy = session.copy_in_raw("COPY copied FROM STDIN").await.unwrap();
    is_removed(&fixture, &victim).await;
    assert!(copy.finish().await.is_err(), "its session is still open");
}

/// With a search path from before there were extensions, a login gets another one when a process starts.
#[tokio::test]
async fn a_changed_search_path_holds_up_no_new_process() {
    let files = [("1_a.sql", "CREATE EXTENSION citext;"), ("2_b.sql", TABLE)];
    let folder = Folder::new(&files);
    let Some(fixture) = folder.fixture(Model::Pool).await else { return };
    let spec = bare();
    let made = ensured(&fixture, &spec).await;
    let mut session = in_main(&fixture, &spec, &made).await;
    let main = fixture.url().parse::<PgConnectOptions>().unwrap().get_database().unwrap().to_owned();
    let set = format!("ALTER ROLE CURRENT_USER IN DATABASE {main} SET search_path");
    for sql in [&*format!("{set} = tenantry_pool, pg_temp"), "BEGIN", &*format!("{set} = pg_temp")] {
        session.execute(AssertSqlSafe(sql)).await.expect(sql);
    }
    fixture.another().probe().await.unwrap();
    assert!(session.ping().await.is_err());
}

/// A prepared transaction keeps its locks after its session has ended.
#[tokio::test]
async fn prepared_transactions_hold_up_nothing() {
    let Some(server) = OwnPostgres::start(&["max_prepared_transactions=20", "fsync=off"]).await else {
        return;
    };
    for model in MODELS {
        let database = TestDatabase::on(&server.url()).await;
        let fixture = Fixture::with_plain_administrator_on(database, model).await;
        let (spec, made) = make(&fixture).await;
        let PgAdvisoryLockKey::BigInt(key) = *lock_of(&fixture, &spec).key() else { unreachable!() };
        let mut elsewhere = made.outputs.clone();
        elsewhere["database"] = "postgres".into();
        let elsewhere = log_in(&fixture, &spec, &elsewhere).await.unwrap();
        for (mut session, sql) in [
            (in_main(&fixture, &spec, &made).await, &*format!("SELECT pg_advisory_xact_lock({key})")),
            (elsewhere, "ALTER ROLE CURRENT_USER PASSWORD 'x'"),
        ] {
            let prepare = format!("BEGIN; {sql}; PREPARE TRANSACTION '{} {}'", spec.name, sql.len());
            session.execute(AssertSqlSafe(prepare)).await.unwrap();
        }
        fence(&fixture, &spec, Some(SuspensionMode::NoLogin), 1).await;
        let left = "SELECT count(*) FROM pg_prepared_xacts";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&mut connect(&server.url()).await).await.unwrap();
        assert_eq!(left, 0, "{model:?}");
        is_removed(&fixture, &spec).await;
    }
}
