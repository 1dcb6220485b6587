//! A removal ends whatever uses what it drops: sessions, replication slots, subscriptions, prepared transactions and locks
//! of other tenants. What the administrator may not end is named with the command that ends it.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, Row as _};
use tenantry_model::FailureClass::Fatal;
use tenantry_model::suspension::SuspensionMode;
use tenantry_provider::{Observed, Spec};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::database::on_server;
use tenantry_testkit::own_postgres::OwnPostgres;

use crate::postgres::{Fixture, MODELS, Model, connect, log_in, make};
use crate::postgres_failures::is;
use crate::postgres_fences::fence;

/// Replication and prepared transactions are off by default. A reader of a slot that was ended returns at once.
const SETTINGS: [&str; 5] = [
    "wal_level=logical",
    "max_prepared_transactions=20",
    "max_connections=60",
    "wal_retrieve_retry_interval=1ms",
    "fsync=off",
];

async fn run(session: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(session).await.expect(sql);
}

async fn count(url: &str, from: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {from}");
    sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut connect(url).await).await.unwrap().get(0)
}

async fn is_removed(fixture: &Fixture, spec: &Spec) -> serde_json::Value {
    let context = fixture.world.context();
    let removed = fixture.provider.remove(&context, spec).await.unwrap();
    let seen = fixture.provider.observe(&context, spec).await.unwrap();
    assert!(matches!(seen, Observed::Absent), "{:?}: {seen:?}", fixture.model);
    removed.receipt
}

/// Connects again and again with these options and begins a long statement, until the server refuses.
fn reconnect(options: PgConnectOptions) -> tokio::task::JoinHandle<u32> {
    tokio::spawn(async move {
        let mut connected = 0;
        while let Ok(mut session) = options.clone().disable_statement_logging().connect().await {
            connected += 1;
            let _ = sqlx::raw_sql("SELECT pg_sleep(1000)").execute(&mut session).await;
        }
        connected
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_use_is_removed() {
    let Some(server) = OwnPostgres::start(&SETTINGS).await else { return };
    let fixture = Fixture::on(TestDatabase::on(&server.url()).await, Model::Database, |_| {});
    let (spec, made) = make(&fixture).await;
    let (url, name) = (on_server(&server.url(), &spec.name), &spec.name);
    let mut inside = connect(&url).await;

    // Another database reads the tenant's through a slot, and the reader comes back whenever it is ended.
    server.say("CREATE DATABASE mirror").await;
    let mut mirror = connect(&on_server(&server.url(), "mirror")).await;
    run(&mut inside, "CREATE PUBLICATION all_tables FOR ALL TABLES").await;
    run(&mut inside, "CREATE PUBLICATION nothing").await;
    run(&mut inside, "SELECT pg_create_logical_replication_slot('to_mirror', 'pgoutput')").await;
    let subscribe = format!(
        "CREATE SUBSCRIPTION reader CONNECTION 'host=127.0.0.1 port={} user=postgres dbname={name}' PUBLICATION nothing
         WITH (create_slot = false, slot_name = 'to_mirror', copy_data = false)",
        fixture.url().parse::<PgConnectOptions>().unwrap().get_port()
    );
    run(&mut mirror, &subscribe).await;
    server.until("SELECT active FROM pg_replication_slots WHERE slot_name = 'to_mirror'").await;

    // The tenant's database reads another, and one whose publisher is gone.
    run(&mut mirror, "CREATE PUBLICATION nothing").await;
    run(&mut mirror, "SELECT pg_create_logical_replication_slot('from_mirror', 'pgoutput')").await;
    let subscribe = subscribe.replace(name, "mirror").replace("reader", "alive");
    let subscribe = subscribe.replace("to_mirror", "from_mirror");
    run(&mut inside, &subscribe).await;
    run(
        &mut inside,
        "CREATE SUBSCRIPTION dead CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false, slot_name = 'kept');
         ALTER SUBSCRIPTION dead ENABLE",
    )
    .await;

    // Transactions that the tenant and the administrator have prepared, with locks on a table.
    let write = "BEGIN; UPDATE workspaces SET name = 'x'; PREPARE TRANSACTION";
    run(&mut log_in(&fixture, &spec, &made.outputs).await.unwrap(), &format!("{write} 'by the tenant'"))
        .await;
    run(&mut inside, "BEGIN; LOCK TABLE tasks; PREPARE TRANSACTION 'by ''the administrator'''").await;

    // PostgreSQL drops no template, either.
    server.say("CREATE ROLE visitor LOGIN SUPERUSER").await;
    run(&mut inside, &format!("ALTER DATABASE \"{name}\" IS_TEMPLATE true")).await;
    let visitor: PgConnectOptions = url.replace("postgres@", "visitor@").parse().unwrap();
    let loops = [reconnect(visitor.clone()), reconnect(visitor)];
    let sleeping =
        "SELECT count(*) = 2 FROM pg_stat_activity WHERE usename = 'visitor' AND query ~ 'pg_sleep'";
    server.until(sleeping).await;

    let receipt = is_removed(&fixture, &spec).await;
    assert_eq!(receipt["replication_slots_left"], 1, "{receipt}");
    for task in loops {
        assert!(task.await.unwrap() > 0);
    }
    for left in [
        &*format!("pg_database WHERE datname = '{name}'"),
        &*format!("pg_replication_slots WHERE database = '{name}' OR slot_name = 'from_mirror'"),
        "pg_prepared_xacts",
        "pg_subscription WHERE subname <> 'reader'",
    ] {
        assert_eq!(count(&server.url(), left).await, 0, "{left}");
    }
    run(&mut mirror, "ALTER SUBSCRIPTION reader DISABLE; ALTER SUBSCRIPTION reader SET (slot_name = NONE)")
        .await;
    run(&mut mirror, "DROP SUBSCRIPTION reader").await;
}

#[tokio::test]
async fn what_a_plain_administrator_may_not_end_is_named_with_the_command() {
    let Some(server) = OwnPostgres::start(&SETTINGS).await else { return };
    let fixture =
        Fixture::with_plain_administrator_on(TestDatabase::on(&server.url()).await, Model::Database).await;
    let (spec, made) = make(&fixture).await;
    let (url, name) = (on_server(&server.url(), &spec.name), &spec.name);
    let mut inside = connect(&url).await;
    // A slot waits for prepared transactions.
    run(&mut inside, "SELECT pg_create_logical_replication_slot('slot', 'test_decoding')").await;
    run(
        &mut log_in(&fixture, &spec, &made.outputs).await.unwrap(),
        "BEGIN; UPDATE workspaces SET name = 'x'; PREPARE TRANSACTION 'of the tenant'",
    )
    .await;
    run(&mut inside, "CREATE SUBSCRIPTION \"Dead\" CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false)").await;
    run(&mut inside, "BEGIN; LOCK TABLE tasks; PREPARE TRANSACTION 'of the superuser'").await;
    run(&mut inside, "CREATE ROLE other LOGIN").await;
    run(&mut inside, &format!("GRANT CONNECT ON DATABASE \"{name}\" TO other")).await;
    let mut other = connect(&url.replace("postgres@", "other@")).await;
    let [of_superuser, of_other]: [i32; 2] = {
        let pid = "SELECT pg_backend_pid()";
        let ask =
            async |session: &mut PgConnection| sqlx::query_scalar(pid).fetch_one(session).await.unwrap();
        [ask(&mut inside).await, ask(&mut other).await]
    };
    let failure = fixture.provider.remove(&fixture.world.context(), &spec).await.unwrap_err();
    is(&failure, Fatal, "not_allowed");
    let administrator = fixture.url().parse::<PgConnectOptions>().unwrap().get_username().to_owned();
    for named in [
        format!("`postgres` uses it: run SELECT pg_terminate_backend({of_superuser}) as a superuser"),
        format!(
            "session {of_other} of the role `other` uses it: end it, or run GRANT pg_signal_backend TO {administrator}"
        ),
        "run ROLLBACK PREPARED 'of the superuser' there".to_owned(),
        "ALTER SUBSCRIPTION \"Dead\" SET (slot_name = NONE) and DROP SUBSCRIPTION \"Dead\" there".to_owned(),
    ] {
        assert!(failure.message.contains(&named), "{named}\n{failure}");
    }
    assert!(!failure.message.contains("of the tenant"), "{failure}");

    // The commands help, and the database takes sessions for them.
    drop(other);
    let mut helper = connect(&url).await;
    for sql in [
        "ALTER SUBSCRIPTION \"Dead\" DISABLE",
        "ALTER SUBSCRIPTION \"Dead\" SET (slot_name = NONE)",
        "DROP SUBSCRIPTION \"Dead\"",
        "ROLLBACK PREPARED 'of the superuser'",
        &format!("SELECT pg_terminate_backend({of_superuser}, 5000)"),
    ] {
        run(&mut helper, sql).await;
    }
    drop(helper);
    server.until(&format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '{name}'")).await;
    is_removed(&fixture, &spec).await;
    assert_eq!(count(&server.url(), "pg_replication_slots").await, 0, "an idle slot goes with its database");
}

/// A removal that was cut off leaves the database closed to all sessions.
#[tokio::test]
async fn a_closed_database_is_reported_repaired_and_removed() {
    let Some(fixture) = Fixture::with(Model::Database, |_| {}).await else { return };
    let (spec, _) = make(&fixture).await;
    let context = fixture.world.context();
    let close = format!("ALTER DATABASE \"{}\" ALLOW_CONNECTIONS false", spec.name);
    for _ in 0..2 {
        fixture.sql(&close).await;
        let seen = fixture.provider.observe(&context, &spec).await.unwrap();
        assert!(matches!(&seen, Observed::Present { differs, .. } if !differs.is_empty()), "{seen:?}");
        fixture.provider.ensure(&context, &spec).await.unwrap();
        assert!(fixture.provider.observe(&context, &spec).await.unwrap().is_healthy());
    }
    fixture.sql(&close).await;
    is_removed(&fixture, &spec).await;
}

/// A login can prepare transactions, and make objects in every database that lets all roles connect.
#[tokio::test]
async fn prepared_transactions_and_objects_elsewhere_end_with_the_access() {
    let Some(server) = OwnPostgres::start(&SETTINGS).await else { return };
    for model in MODELS {
        let database = TestDatabase::on(&server.url()).await;
        let fixture = Fixture::with_plain_administrator_on(database, model).await;
        let (spec, made) = make(&fixture).await;
        let prepare = async |gid: &str| {
            let mut session = log_in(&fixture, &spec, &made.outputs).await.unwrap();
            run(
                &mut session,
                &format!("BEGIN; UPDATE workspaces SET name = '{gid}'; PREPARE TRANSACTION '{gid}'"),
            )
            .await;
            let mut elsewhere = made.outputs.clone();
            elsewhere["database"] = "postgres".into();
            let mut session = log_in(&fixture, &spec, &elsewhere).await.unwrap();
            run(
                &mut session,
                &format!(
                    "SELECT lo_create(0); BEGIN; SELECT lo_create(0); PREPARE TRANSACTION '{gid} elsewhere'"
                ),
            )
            .await;
        };
        prepare("suspended").await;
        fence(&fixture, &spec, Some(SuspensionMode::NoLogin), 1).await;
        assert_eq!(count(&server.url(), "pg_prepared_xacts").await, 0, "{model:?}");
        fence(&fixture, &spec, None, 2).await;
        prepare("removed").await;
        is_removed(&fixture, &spec).await;
        assert_eq!(count(&server.url(), "pg_prepared_xacts").await, 0, "{model:?}");
        assert_eq!(count(&server.url(), "pg_largeobject_metadata").await, 0, "{model:?}");
    }
}

/// LOCK TABLE needs no more than the privilege to update, and a prepared transaction keeps the lock for ever.
#[tokio::test]
async fn locks_of_another_tenant_do_not_block_a_removal() {
    let Some(server) = OwnPostgres::start(&SETTINGS).await else { return };
    let fixture = Fixture::on(TestDatabase::on(&server.url()).await, Model::Pool, |_| {});
    let ((spec, _), (other, made)) = (make(&fixture).await, make(&fixture).await);
    let mut session = log_in(&fixture, &other, &made.outputs).await.unwrap();
    run(&mut session, "BEGIN; LOCK TABLE workspaces; PREPARE TRANSACTION 'locks'").await;
    run(&mut session, "BEGIN; UPDATE projects SET name = 'x'; PREPARE TRANSACTION 'harmless'").await;
    run(&mut session, "BEGIN; LOCK TABLE tasks").await;
    is_removed(&fixture, &spec).await;
    assert_eq!(count(&server.url(), "pg_prepared_xacts WHERE gid = 'harmless'").await, 1);
    run(&mut log_in(&fixture, &other, &made.outputs).await.unwrap(), "ROLLBACK PREPARED 'harmless'").await;
}
