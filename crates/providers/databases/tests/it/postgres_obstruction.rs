//! What every login may hold, such as advisory locks, locks on the tables that it writes, and changes of its own role that it
//! does not commit, keeps neither Tenantry nor other tenants from their work.

use sqlx::postgres::{PgAdvisoryLock, PgAdvisoryLockKey, PgConnectOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _};
use tenantry_databases::postgres::Config;
use tenantry_model::TenantId;
use tenantry_model::suspension::SuspensionMode;
use tenantry_provider::{Ensured, Observed, Outcome, OwnDatabases, Provider, Spec};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::own_postgres::OwnPostgres;
use tokio::sync::mpsc;

use crate::contract::Environment as _;
use crate::postgres::{
    Fixture, MODELS, Model, connect, ensured, log_in, login, make, plain, provider_beside, try_provider,
};
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

/// In the registry's database a login could take the locks with which Tenantry starts and writes.
#[tokio::test]
async fn no_tenant_is_created_where_its_login_could_connect_to_the_registry() {
    for model in MODELS {
        let Some(fixture) = Fixture::with_plain_administrator(model).await else { return };
        let registry = TestDatabase::postgres().await.unwrap();
        let beside =
            |url: &str| provider_beside(model, &OwnDatabases(vec![url.to_owned()]), fixture.config());
        let (context, spec) = (fixture.world.context(), crate::world::spec(fixture.settings()));
        let name = registry.url().rsplit('/').next().unwrap().to_owned();
        let refused = async |provider: &dyn Provider, remedy: &str| {
            for failure in
                [provider.probe().await.unwrap_err(), provider.ensure(&context, &spec).await.unwrap_err()]
            {
                assert_eq!(failure.code, "own_database_open", "{model:?}");
                assert!(failure.message.contains(remedy), "{model:?}: {failure}");
            }
        };
        let revoke = format!("REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC");
        refused(&*beside(registry.url()), &revoke).await;
        let created = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'tenantry')";
        assert!(
            !fixture.sql(created).await[0].get::<bool, _>(0),
            "{model:?}: a failed attempt has created something"
        );
        refused(&*beside(fixture.url()), "a database of its own").await;
        connect(registry.url()).await.execute(AssertSqlSafe(revoke)).await.unwrap();
        let closed = beside(registry.url());
        closed.probe().await.unwrap();
        closed.ensure(&context, &spec).await.unwrap();
        // Now there are tenants. Another process finds that the database was opened again.
        let grant = format!("GRANT CONNECT ON DATABASE {name} TO PUBLIC");
        connect(registry.url()).await.execute(AssertSqlSafe(grant)).await.unwrap();
        refused(&*beside(registry.url()), "REVOKE CONNECT").await;
        let cells = closed.isolation().unwrap().check(&[spec.tenant.id]).await.unwrap().cells;
        let leak = cells.iter().find(|cell| cell.outcome == Outcome::Leak).map(|cell| cell.what.as_str());
        assert_eq!(leak, Some("own_databases"), "{model:?}");
        // What there is can be removed.
        beside(registry.url()).remove(&context, &spec).await.unwrap();
    }
}

/// The names of the isolation check's cells that report an obstruction.
async fn obstructions(fixture: &Fixture, tenants: &[&Spec]) -> Vec<String> {
    let tenants: Vec<TenantId> = tenants.iter().map(|spec| spec.tenant.id).collect();
    let cells = fixture.provider.isolation().unwrap().check(&tenants).await.unwrap().cells;
    cells.into_iter().filter(|cell| cell.outcome == Outcome::Obstruction).map(|cell| cell.what).collect()
}

/// Sends this many bytes of notifications, which stay in the queue while a session that listens has a transaction open.
async fn notify(session: &mut PgConnection, bytes: usize) {
    let flood = format!(
        "SELECT count(pg_notify('flood', n || repeat('x', 7900))) FROM generate_series(1, {}) n",
        bytes / 7_900
    );
    session.execute(AssertSqlSafe(flood)).await.unwrap();
}

/// The isolation check finds one of each kind, and none when it is gone.
#[tokio::test]
async fn planted_obstructions_are_found() {
    let Some(server) = OwnPostgres::start(&["max_connections=60", "fsync=off"]).await else { return };
    for model in MODELS {
        let database = TestDatabase::on(&server.url()).await;
        let change = |config: &mut Config| config.transaction_limit_seconds = 1;
        let fixture = Fixture::with_administrator(database, model, plain(model), change).await.unwrap();
        let ((spec, made), (other, others)) = (make(&fixture).await, make(&fixture).await);
        let found = async || obstructions(&fixture, &[&spec, &other]).await;
        assert_eq!(found().await, [""; 0], "{model:?}");
        let main = async || in_main(&fixture, &spec, &made).await;
        let superuser = format!(
            "{}/{}",
            server.url().rsplit_once('/').unwrap().0,
            fixture.url().rsplit('/').next().unwrap()
        );
        let limit = async |to: u16| {
            let sql = format!("ALTER ROLE \"{}\" CONNECTION LIMIT {to}", spec.name);
            connect(&superuser).await.execute(AssertSqlSafe(sql)).await.unwrap();
        };

        let mut holder = main().await;
        holder.execute("SELECT pg_advisory_lock(7)").await.unwrap();
        let mut waiter = in_main(&fixture, &other, &others).await;
        let waits = tokio::spawn(async move { waiter.execute("SELECT pg_advisory_lock(7)").await.map(drop) });
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND waitstart < clock_timestamp() - interval '5 s'";
        while fixture.sql(waiting).await[0].get::<i64, _>(0) < 1 {}
        assert_eq!(found().await, ["locks"], "{model:?}");
        holder.close().await.unwrap();
        waits.await.unwrap().unwrap();

        let mut old = main().await;
        old.execute("BEGIN").await.unwrap();
        let age = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity WHERE state = 'idle in transaction'";
        while fixture.sql(age).await[0].get::<f64, _>(0) < 6.5 {}
        assert_eq!(found().await, ["old_transactions"], "{model:?}");
        old.close().await.unwrap();

        limit(1_000).await;
        assert_eq!(found().await, ["connections"], "{model:?}");
        let mut sessions = Vec::new();
        while let Ok(session) = login(&fixture, &spec, &made.outputs).connect().await {
            sessions.push(session);
        }
        // The check takes up to three.
        for session in sessions.split_off(sessions.len() - 4) {
            session.close().await.unwrap();
        }
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", spec.name);
        let mut watcher = connect(&superuser).await;
        let mut until = async |most: usize| {
            let most = i64::try_from(most).unwrap();
            while sqlx::query_scalar::<_, i64>(AssertSqlSafe(&*count)).fetch_one(&mut watcher).await.unwrap()
                > most
            {}
        };
        until(sessions.len()).await;
        limit(fixture.config().connection_limit).await;
        assert_eq!(found().await, ["connections"], "{model:?}");
        drop(sessions);
        until(0).await;

        let mut temporary = main().await;
        let rows = "CREATE TEMP TABLE large AS SELECT repeat('x', 1900) FROM generate_series(1, 40000)";
        temporary.execute(rows).await.unwrap();
        assert_eq!(found().await, ["temporary_tables"], "{model:?}");
        temporary.close().await.unwrap();

        let mut listener = main().await;
        listener.execute("LISTEN flood").await.unwrap();
        listener.execute("BEGIN; SELECT 1").await.unwrap();
        notify(&mut main().await, 100 * 1024 * 1024).await;
        let full = found().await;
        assert!(full.contains(&"notifications".to_owned()), "{model:?}: {full:?}");
        listener.close().await.unwrap();
        is_removed(&fixture, &spec).await;
        is_removed(&fixture, &other).await;
    }
}

/// While such a transaction is open, no vacuum removes what any tenant of the database deletes.
#[tokio::test]
async fn old_transactions_of_tenants_are_ended() {
    let Some(server) = OwnPostgres::start(&["max_prepared_transactions=4", "fsync=off"]).await else {
        return;
    };
    for model in MODELS {
        let database = TestDatabase::on(&server.url()).await;
        let change = |config: &mut Config| config.transaction_limit_seconds = 1;
        let fixture = Fixture::with_administrator(database, model, plain(model), change).await.unwrap();
        let (spec, made) = make(&fixture).await;
        let mut prepared = in_main(&fixture, &spec, &made).await;
        prepared.execute("BEGIN; SELECT pg_advisory_xact_lock(1); PREPARE TRANSACTION 'old'").await.unwrap();
        let mut old = in_main(&fixture, &spec, &made).await;
        old.execute("BEGIN").await.unwrap();
        let mut idle = in_main(&fixture, &spec, &made).await;
        // The server has all three; the one for shared tables watches the main database.
        let watching = try_provider(Model::Pool, fixture.config()).unwrap();
        watching.start().await.unwrap();
        let open = "SELECT (SELECT count(*) FROM pg_prepared_xacts) + (SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction')";
        while fixture.sql(open).await[0].get::<i64, _>(0) > 0 {}
        assert!(old.ping().await.is_err());
        idle.ping().await.unwrap();
        is_removed(&fixture, &spec).await;
    }
}

/// A tenant that has all connections of the server cannot keep Tenantry from ending them.
#[tokio::test]
async fn a_tenant_that_takes_all_connections_is_suspended() {
    let Some(server) = OwnPostgres::start(&["max_connections=20", "fsync=off"]).await else { return };
    let database = TestDatabase::on(&server.url()).await;
    let fixture = Fixture::with_plain_administrator_on(database, Model::Pool).await;
    fixture.provider.start().await.unwrap();
    let (spec, made) = make(&fixture).await;
    let mut sessions = Vec::new();
    while let Ok(session) = login(&fixture, &spec, &made.outputs).connect().await {
        sessions.push(session);
    }
    assert!(sessions.len() < usize::from(fixture.config().connection_limit), "the server has room for more");
    fence(&fixture, &spec, Some(SuspensionMode::NoLogin), 1).await;
    for mut session in sessions {
        assert!(session.ping().await.is_err(), "a session is still open");
    }
    is_removed(&fixture, &spec).await;
}
