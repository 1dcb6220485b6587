//! Failures of PostgreSQL: terminated sessions, changed or broken migrations, full, missing or slow servers,
//! and attempts of two processes at once.

use std::path::Path;

use sqlx::Row as _;
use tempfile::TempDir;
use tenantry_model::FailureClass::{Fatal, Invalid, Retryable};
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, FailureClass};
use tenantry_provider::{Observed, Provider, Spec};

use crate::contract::Environment;
use crate::postgres::{Fixture, Model};
use crate::postgres_fences::fence;
use crate::world::spec;

const MODELS: [Model; 3] = [Model::Pool, Model::Schema, Model::Database];
pub const TABLE: &str =
    "CREATE TABLE t (tenant_id text NOT NULL, id text NOT NULL, n integer, PRIMARY KEY (tenant_id, id));";

/// A test's own migrations and seeds.
pub struct Folder(TempDir);

impl Folder {
    pub fn new(migrations: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(folder.path().join("postgres/app")).unwrap();
        std::fs::write(folder.path().join("canary.yaml"), "[{table: t, rows: [{id: canary, n: 1}]}]")
            .unwrap();
        for (name, text) in migrations {
            folder.migration(name, text);
        }
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn migration(&self, name: &str, text: &str) {
        std::fs::write(self.path().join("postgres/app").join(name), text).unwrap();
    }

    fn seed(&self, n: &str) {
        let text = format!("[{{table: t, rows: [{{id: first, n: {n}}}]}}]");
        std::fs::create_dir_all(self.path().join("start")).unwrap();
        std::fs::write(self.path().join("start/en.yaml"), text).unwrap();
    }

    pub async fn fixture(&self, model: Model) -> Option<Fixture> {
        let folder = self.path().to_owned();
        Fixture::with(model, |config| {
            config.migrations = Some(folder.clone());
            config.seeds = Some(folder);
        })
        .await
    }
}

pub fn bare() -> Spec {
    spec(serde_json::json!({}))
}

async fn is_healthy(provider: &dyn Provider, fixture: &Fixture, spec: &Spec) -> bool {
    let seen = provider.observe(&fixture.world.context(), spec).await.unwrap();
    seen.is_healthy()
}

pub fn is(failure: &Failure, class: FailureClass, code: &str) {
    assert_eq!((failure.class, &*failure.code), (class, code), "{failure}");
}

#[tokio::test]
async fn new_migrations_are_applied_by_ensure_and_changed_ones_rejected() {
    for model in MODELS {
        let folder = Folder::new(&[("1_a.sql", TABLE)]);
        let Some(fixture) = folder.fixture(model).await else { return };
        let spec = bare();
        fixture.ensure(&spec).await;
        folder.migration(
            "2_b.sql",
            "ALTER TABLE t ADD COLUMN m integer; CREATE INDEX t_by_m ON t (tenant_id, m);",
        );
        let later = fixture.another();
        if model != Model::Pool {
            assert!(!is_healthy(&*later, &fixture, &spec).await, "{model:?}: a migration is missing");
        }
        later.ensure(&fixture.world.context(), &spec).await.unwrap();
        assert!(is_healthy(&*later, &fixture, &spec).await, "{model:?}");
        let row = serde_json::json!({ "id": "x", "m": 7 });
        let rows = later.data().unwrap().scoped(spec.tenant.id);
        assert_eq!(rows.insert("t", row.as_object().unwrap().clone()).await.unwrap()["m"], 7);
        folder.migration("3_c.sql", "ALTER TABLE t DROP COLUMN m;");
        fixture.another().ensure(&fixture.world.context(), &spec).await.unwrap();
        if model != Model::Pool {
            let folder_of_two = later.ensure(&fixture.world.context(), &spec).await.unwrap_err();
            is(&folder_of_two, Fatal, "migration_changed");
            let seen = rows.get("t", "x").await.unwrap().unwrap();
            assert_eq!(seen.get("m"), None, "{model:?}: the tables are read again");
        }

        folder.migration("1_a.sql", &TABLE.replace("n integer", "n bigint"));
        let changed = fixture.another().ensure(&fixture.world.context(), &spec).await.unwrap_err();
        is(&changed, Fatal, "migration_changed");
        assert!(changed.message.contains("1_a.sql was changed"), "{model:?}: {changed}");
    }
}

#[tokio::test]
async fn a_role_may_use_all_objects_of_its_schema_except_migrations() {
    // Types of the same name in two schemas, and all kinds of arguments of routines.
    let more = "CREATE SEQUENCE \"Odd numbers\"; CREATE TYPE mood AS ENUM ('good');
        CREATE FUNCTION greet(m mood, n integer DEFAULT 1) RETURNS text LANGUAGE sql AS 'SELECT m::text';
        CREATE FUNCTION greet(m shared.mood, VARIADIC n mood[]) RETURNS text LANGUAGE sql AS 'SELECT m::text';
        CREATE FUNCTION \"Greet, (all)\"(OUT n integer, INOUT m text) LANGUAGE sql AS 'SELECT 1, m';
        CREATE AGGREGATE middle(ORDER BY integer) (SFUNC = pg_catalog.int4pl, STYPE = integer);
        CREATE PROCEDURE tidy() LANGUAGE sql AS 'SELECT 1';
        CREATE PROCEDURE tidy(a integer, OUT b integer) LANGUAGE sql AS 'SELECT 1';
        CREATE PROCEDURE tidy(a integer, b integer) LANGUAGE sql AS 'SELECT 1';
        CREATE VIEW seen WITH (security_invoker = true) AS SELECT * FROM t;";
    let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", more)]);
    let Some(fixture) = folder.fixture(Model::Schema).await else { return };
    fixture.sql("CREATE SCHEMA shared").await;
    fixture.sql("CREATE TYPE shared.mood AS ENUM ('bad')").await;
    let checks = "SELECT has_table_privilege($R, '$S.t', 'DELETE') AND has_table_privilege($R, '$S.seen', 'SELECT')
            AND has_sequence_privilege($R, '$S.\"Odd numbers\"', 'USAGE') AS may,
        has_table_privilege($R, '$S._migrations', 'SELECT') OR has_sequence_privilege($R, '$S._migrations_position_seq', 'USAGE')
            OR has_table_privilege($R, '$S.t', 'TRUNCATE') AS may_too_much,
        count(*), count(*) FILTER (WHERE has_function_privilege($R, oid, 'EXECUTE')) AS own,
        count(*) FILTER (WHERE has_function_privilege('public', oid, 'EXECUTE')) AS everybodys
        FROM pg_proc WHERE pronamespace = '$S'::regnamespace";
    // The first schema is read; the others are created like it, in one message.
    for _ in 0..3 {
        let spec = bare();
        fixture.ensure(&spec).await;
        for (version, mode) in [(0, None), (1, Some(SuspensionMode::ReadOnly)), (2, None)] {
            if version > 0 {
                fence(&fixture, &spec, mode, version).await;
            }
            let asked = checks
                .replace("$R", &format!("'{}'", spec.name))
                .replace("$S", &format!("\"{}\"", spec.name));
            let row = &fixture.sql(&asked).await[0];
            let may = mode.is_none();
            assert_eq!((row.get("may"), row.get("may_too_much")), (may, false), "{version}");
            let routines = ["count", "own", "everybodys"].map(|column| row.get::<i64, _>(column));
            assert_eq!(routines, [7, if may { 7 } else { 0 }, 0], "{version}");
        }
        assert!(is_healthy(&*fixture.provider, &fixture, &spec).await);
    }
}

#[tokio::test]
async fn schemas_may_differ_after_the_same_migrations() {
    let unlike = "DO $$ BEGIN
        EXECUTE format('CREATE FUNCTION %I() RETURNS integer LANGUAGE sql AS ''SELECT 1''', 'of ' || current_schema());
        IF nextval('shared.made') > 3 THEN CREATE FUNCTION more() RETURNS integer LANGUAGE sql AS 'SELECT 1'; END IF;
        END $$;";
    let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", unlike)]);
    let Some(fixture) = folder.fixture(Model::Schema).await else { return };
    fixture.sql("CREATE SCHEMA shared").await;
    fixture.sql("CREATE SEQUENCE shared.made").await;
    // The trial of the files and the canary's schema were the first.
    for routines in [1, 2, 2] {
        let spec = bare();
        fixture.ensure(&spec).await;
        let Spec { name, .. } = &spec;
        let asked = format!(
            "SELECT count(*) FILTER (WHERE has_function_privilege('{name}', oid, 'EXECUTE')),
                count(*) FILTER (WHERE has_function_privilege('public', oid, 'EXECUTE'))
             FROM pg_proc WHERE pronamespace = '{name}'::regnamespace"
        );
        let row = &fixture.sql(&asked).await[0];
        assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (routines, 0));
    }
}

#[tokio::test]
async fn a_recreated_schema_is_incomplete_without_its_seed() {
    for (model, lose) in
        [(Model::Schema, "DROP SCHEMA NAME CASCADE"), (Model::Database, "DROP DATABASE NAME")]
    {
        let folder = Folder::new(&[("1_a.sql", TABLE)]);
        folder.seed("1");
        let Some(fixture) = folder.fixture(model).await else { return };
        let (spec, context) = (spec(serde_json::json!({ "seed": "start" })), fixture.world.context());
        fixture.ensure(&spec).await;
        fixture.sql(&lose.replace("NAME", &format!("\"{}\"", spec.name))).await;
        // The last step of the repair fails, and a migration was added.
        folder.migration("2_b.sql", "ALTER TABLE t ADD COLUMN m integer;");
        folder.seed("no number");
        let failed = fixture.another().ensure(&context, &spec).await.unwrap_err();
        is(&failed, Invalid, "bad_seed");
        assert!(failed.message.contains("start: table `t`: "), "{failed}");
        assert!(!is_healthy(&*fixture.another(), &fixture, &spec).await, "{model:?}");
        let too_early = fixture.another().data().unwrap().scoped(spec.tenant.id).get("t", "first").await;
        is(&too_early.unwrap_err(), Invalid, "no_such_tenant");
        folder.seed("2");
        let later = fixture.another();
        later.ensure(&context, &spec).await.unwrap();
        assert!(is_healthy(&*later, &fixture, &spec).await, "{model:?}");
        let row = later.data().unwrap().scoped(spec.tenant.id).get("t", "first").await.unwrap();
        assert_eq!(row.unwrap()["n"], 2, "{model:?}");
    }
}

#[tokio::test]
async fn removal_covers_tables_of_newer_migrations() {
    let folder = Folder::new(&[("1_a.sql", TABLE)]);
    let Some(fixture) = folder.fixture(Model::Pool).await else { return };
    let (spec, context) = (bare(), fixture.world.context());
    fixture.ensure(&spec).await;
    folder.migration("2_notes.sql", &TABLE.replace("TABLE t", "TABLE notes"));
    let newer = fixture.another();
    newer.ensure(&context, &spec).await.unwrap();
    let note = serde_json::json!({ "id": "x" }).as_object().unwrap().clone();
    newer.data().unwrap().scoped(spec.tenant.id).insert("notes", note).await.unwrap();
    let removed = fixture.provider.remove(&context, &spec).await.unwrap();
    assert_eq!(removed.receipt["rows"], serde_json::json!({ "notes": 1, "t": 0 }));
    assert_eq!(fixture.provider.observe(&context, &spec).await.unwrap(), Observed::Absent);

    // Rows of a tenant that is not listed are reported and removed.
    let tenant = spec.tenant.id;
    fixture.sql(&format!("INSERT INTO tenantry_pool.notes VALUES ('{tenant}', 'late', 1)")).await;
    for process in [&*fixture.provider, &*newer] {
        let seen = process.observe(&context, &spec).await.unwrap();
        assert!(matches!(seen, Observed::Present { .. }) && !seen.is_healthy(), "{seen:?}");
    }
    fixture.provider.remove(&context, &spec).await.unwrap();
    assert_eq!(fixture.provider.observe(&context, &spec).await.unwrap(), Observed::Absent);
}

#[tokio::test]
async fn a_file_without_a_transaction_runs_statement_by_statement() {
    for model in MODELS {
        let folder = Folder::new(&[
            ("1_a.sql", TABLE),
            (
                "2_b.sql",
                "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS t_by_n ON t (tenant_id, n);\nSELECT ';';",
            ),
        ]);
        let Some(fixture) = folder.fixture(model).await else { return };
        let spec = bare();
        fixture.ensure(&spec).await;
        assert!(is_healthy(&*fixture.provider, &fixture, &spec).await, "{model:?}");
    }
}

#[tokio::test]
async fn a_rejected_migration_is_named_and_rolled_back() {
    for (sql, why) in [
        ("CREATE TABLE x (id text PRIMARY KEY);", "`x` cannot be shared"),
        (
            "CREATE TABLE x (tenant_id text NOT NULL, id text, PRIMARY KEY (id, tenant_id));",
            "must begin with",
        ),
        ("CREATE TABLE x (tenant_id text NOT NULL, id text);", "needs a primary key"),
        ("CREATE UNIQUE INDEX u ON t (n);", "unique index"),
        ("CREATE TABLE _x (tenant_id text NOT NULL, id text, PRIMARY KEY (tenant_id, id));", "underscore"),
        (
            "CREATE TABLE x (tenant_id text NOT NULL, id text, o text, PRIMARY KEY (tenant_id, id),
             FOREIGN KEY (o, id) REFERENCES t (tenant_id, id));",
            "foreign key",
        ),
        ("CREATE TABEL x ();", "syntax error"),
    ] {
        // The rules are those of shared tables.
        let models: &[Model] =
            if why == "syntax error" { &[Model::Schema, Model::Pool] } else { &[Model::Pool] };
        for model in models {
            let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", sql)]);
            let Some(fixture) = folder.fixture(*model).await else { return };
            let failure = fixture.provider.ensure(&fixture.world.context(), &bare()).await.unwrap_err();
            is(&failure, Fatal, "bad_migration");
            assert!(failure.message.contains("2_b.sql:1: ") && failure.message.contains(why), "{failure}");
        }
    }
}

#[tokio::test]
async fn migrations_that_bypass_policies_are_rejected() {
    for (sql, why) in [
        ("CREATE VIEW v AS SELECT * FROM t;", "security_invoker"),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM t;", "copy"),
        (
            "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM t';",
            "SECURITY DEFINER",
        ),
        ("CREATE POLICY all_of_them ON t USING (true);", "RESTRICTIVE"),
    ] {
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", sql)]);
        let Some(fixture) = folder.fixture(Model::Pool).await else { return };
        let failure = fixture.provider.probe().await.unwrap_err();
        is(&failure, Fatal, "bad_migration");
        assert!(failure.message.contains(why), "{failure}");
    }
    let harmless = "CREATE VIEW v WITH (security_invoker = true) AS SELECT * FROM t; CREATE POLICY few ON t AS RESTRICTIVE USING (n > 0);";
    let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", harmless)]);
    let Some(fixture) = folder.fixture(Model::Pool).await else { return };
    fixture.provider.probe().await.unwrap();
}

/// A trigger that raises an error if the deletion of a tenant's rows has a statement timeout.
const UNHURRIED: &str = "
CREATE FUNCTION hurried() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF current_setting('statement_timeout') <> '0' THEN RAISE EXCEPTION 'hurried'; END IF;
   PERFORM FROM t; RETURN OLD; END $$;
CREATE TRIGGER hurried BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION hurried();";

#[tokio::test]
async fn removal_has_no_statement_timeout() {
    let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", UNHURRIED)]);
    let Some(fixture) = folder.fixture(Model::Pool).await else { return };
    let (spec, context) = (bare(), fixture.world.context());
    fixture.ensure(&spec).await;
    let row = serde_json::json!({ "id": "x" }).as_object().unwrap().clone();
    fixture.provider.data().unwrap().scoped(spec.tenant.id).insert("t", row).await.unwrap();
    let removed = fixture.provider.remove(&context, &spec).await.unwrap();
    assert_eq!(removed.receipt["rows"]["t"], 1);

    // An event trigger checks the same for DROP SCHEMA.
    let fixture = Fixture::of(Model::Schema).await.unwrap();
    fixture
        .sql(
            "CREATE FUNCTION hurried() RETURNS event_trigger LANGUAGE plpgsql AS
             $$ BEGIN IF current_setting('statement_timeout') <> '0' AND tg_tag = 'DROP SCHEMA' THEN RAISE EXCEPTION 'hurried'; END IF; END $$",
        )
        .await;
    fixture.sql("CREATE EVENT TRIGGER hurried ON sql_drop EXECUTE FUNCTION hurried()").await;
    let spec = bare();
    fixture.ensure(&spec).await;
    fixture.provider.remove(&fixture.world.context(), &spec).await.unwrap();
    assert_eq!(fixture.count(&spec).await, 0);
}

#[tokio::test]
async fn concurrent_processes_create_one_tenant() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let another = fixture.another();
        let spec = spec(fixture.settings());
        let (context, other) = (fixture.world.context(), fixture.world.context());
        let (a, b) = tokio::join!(fixture.provider.ensure(&context, &spec), another.ensure(&other, &spec));
        // Both attempts hand out the same valid password.
        let sealed = [a.unwrap(), b.unwrap()].map(|made| {
            fixture.world.registry.apply(&made.writes);
            fixture.world.secret(&spec, &format!("postgres_password:{}", spec.name))
        });
        assert_eq!(sealed[0], sealed[1], "{model:?}");
        assert_eq!(fixture.count(&spec).await, 1);
        let (removed, made) =
            tokio::join!(fixture.provider.remove(&context, &spec), another.ensure(&other, &spec));
        removed.unwrap();
        made.unwrap();
        fixture.provider.remove(&context, &spec).await.unwrap();
        assert_eq!(fixture.count(&spec).await, 0, "{model:?}");
    }
}

/// Terminates all sessions of a provider.
const TERMINATE_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'tenantry' AND (datname = current_database() OR query ~ current_database())";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_attempts_are_completed_by_the_next() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        fixture.provider.probe().await.unwrap();
        let (mut ended, mut failed) = (0, 0);
        for _ in 0..12 {
            let spec = spec(fixture.settings());
            let context = fixture.world.context();
            let mut ensure = std::pin::pin!(fixture.provider.ensure(&context, &spec));
            // Terminates the provider's sessions again and again until the attempt ends, and none after it.
            let first = loop {
                let mut ends = std::pin::pin!(fixture.sql(TERMINATE_SESSIONS));
                tokio::select! {
                    done = &mut ensure => {
                        ended += ends.await.len();
                        break done;
                    }
                    rows = &mut ends => ended += rows.len(),
                }
            };
            if let Err(failure) = first {
                assert!(failure.may_retry(), "{model:?}: {failure:?}");
                failed += 1;
            }
            let mut made = fixture.provider.ensure(&context, &spec).await;
            // Dead connections in the pool are found one by one.
            for _ in 0..8 {
                match made {
                    Err(failure) if failure.may_retry() => {}
                    _ => break,
                }
                made = fixture.provider.ensure(&context, &spec).await;
            }
            fixture.world.registry.apply(&made.unwrap().writes);
            assert!(is_healthy(&*fixture.provider, &fixture, &spec).await, "{model:?}");
            assert_eq!(fixture.count(&spec).await, 1, "{model:?}");
        }
        assert!(ended > 0 && failed > 0, "{model:?}: {ended} sessions were ended, {failed} attempts failed");
    }
}

#[tokio::test]
async fn server_failures_have_their_class() {
    let Some(fixture) = Fixture::of(Model::Schema).await else { return };
    let spec = spec(fixture.settings());
    let context = fixture.world.context();
    let gone = fixture.unusable().await.unwrap();
    is(&gone.ensure(&context, &spec).await.unwrap_err(), Retryable, "unreachable");
    let nowhere = |config: &mut tenantry_databases::postgres::Config| {
        config.url = config.url.replace("/tenantry_", "/nowhere_");
    };
    let fixture = Fixture::with(Model::Schema, nowhere).await.unwrap();
    is(&fixture.provider.probe().await.unwrap_err(), Fatal, "no_database");
    let limited = |config: &mut tenantry_databases::postgres::Config| {
        config.url.push_str("?options=-c%20default_transaction_read_only%3Don");
    };
    let fixture = Fixture::with(Model::Schema, limited).await.unwrap();
    is(&fixture.provider.probe().await.unwrap_err(), Retryable, "read_only");
}

#[tokio::test]
async fn rejected_rows_are_the_callers_fault() {
    let Some(fixture) = Fixture::of(Model::Schema).await else { return };
    let spec = spec(fixture.settings());
    fixture.ensure(&spec).await;
    let rows = fixture.provider.data().unwrap().scoped(spec.tenant.id);
    let insert = async |table: &str, row: serde_json::Value| {
        rows.insert(table, row.as_object().unwrap().clone()).await.unwrap_err()
    };
    for (table, row, code) in [
        ("nothing", serde_json::json!({}), "unknown_table"),
        ("_migrations", serde_json::json!({}), "unknown_table"),
        ("tasks", serde_json::json!({ "x\"; --": 1 }), "unknown_column"),
        ("tasks", serde_json::json!({ "tenant_id": "x" }), "not_allowed"),
        ("tasks", serde_json::json!({ "title": "x", "project_id": "missing" }), "constraint"),
        ("tasks", serde_json::json!({ "position": "secret" }), "bad_value"),
        ("tasks", serde_json::json!({ "title": "a\u{0}b" }), "bad_value"),
        ("tasks", serde_json::json!({ "position": u64::MAX }), "bad_value"),
        ("workspaces", serde_json::json!({ "id": "default", "name": "again" }), "constraint"),
    ] {
        let failure = insert(table, row.clone()).await;
        is(&failure, Invalid, code);
        assert!(!failure.message.contains("secret"), "{failure}");
    }
    let first = rows.list("tasks", 2, None).await.unwrap();
    let next = rows.list("tasks", 2, first.next.as_deref()).await.unwrap();
    assert_eq!((first.rows.len(), next.rows.len(), next.next), (2, 1, None));
    assert_eq!(rows.remove_samples().await.unwrap()["tasks"], 3);
    assert!(!rows.delete("tasks", "'; DROP TABLE tasks; --").await.unwrap());
    fixture.provider.remove(&fixture.world.context(), &spec).await.unwrap();
    is(&rows.get("tasks", "x").await.unwrap_err(), Invalid, "no_such_tenant");
}
