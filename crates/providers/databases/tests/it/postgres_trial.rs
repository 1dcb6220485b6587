//! Migration files that would leak rows, or that reach outside of a tenant's place, are rejected before any tenant sees
//! them; what they leave nameable shows no other tenant's rows.

use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tenantry_databases::postgres::PgNotify;
use tenantry_model::FailureClass::Fatal;
use tenantry_provider::{Observed, Outcome, Spec};
use tenantry_testkit::database::on_server;

use crate::postgres::{Fixture, MODELS, Model, ensured, log_in};
use crate::postgres_failures::{Folder, TABLE, bare, is};

/// A shared table by range and two of its partitions, one of them partitioned again.
const PARTITIONED: &str = "
    CREATE TABLE events (tenant_id text NOT NULL, id text NOT NULL, day int NOT NULL, PRIMARY KEY (tenant_id, id, day))
        PARTITION BY RANGE (day);
    CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10);
    CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20) PARTITION BY LIST (day);
    CREATE TABLE events_2_10 PARTITION OF events_2 DEFAULT;";

/// A parent and a child by inheritance.
const INHERITED: &str = "
    CREATE TABLE base (tenant_id text NOT NULL, id text NOT NULL, PRIMARY KEY (tenant_id, id));
    CREATE TABLE child (more text, PRIMARY KEY (tenant_id, id)) INHERITS (base);";

async fn leaks(fixture: &Fixture, tenants: &[&Spec]) -> Vec<String> {
    let ids: Vec<_> = tenants.iter().map(|spec| spec.tenant.id).collect();
    let cells = fixture.provider.isolation().unwrap().check(&ids).await.unwrap().cells;
    let red = cells.into_iter().filter(|cell| cell.outcome == Outcome::Leak);
    red.flat_map(|cell| cell.found.into_iter().map(move |found| format!("{}: {found}", cell.what))).collect()
}

/// Rows of another tenant that this session reads, changes or deletes, over every relation of the database that has a
/// tenant's rows: `relation verb`. Each attempt is rolled back.
async fn reached(session: &mut PgConnection, fixture: &Fixture, other: &str) -> Vec<String> {
    let relations = fixture
        .sql(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
             WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname NOT IN ('pg_catalog', 'information_schema', 'tenantry')
               AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'tenant_id')",
        )
        .await;
    let mut reached = Vec::new();
    assert!(relations.len() > 3, "there are shared tables");
    for row in relations {
        let table: String = row.get(0);
        let condition = format!("WHERE tenant_id = '{other}'");
        for (verb, sql) in [
            ("read", format!("SELECT count(*) FROM {table} {condition}")),
            (
                "changed",
                format!(
                    "WITH done AS (UPDATE {table} SET tenant_id = tenant_id {condition} RETURNING 1) SELECT count(*) FROM done"
                ),
            ),
            (
                "deleted",
                format!(
                    "WITH done AS (DELETE FROM {table} {condition} RETURNING 1) SELECT count(*) FROM done"
                ),
            ),
            (
                "inserted",
                format!(
                    "WITH done AS (INSERT INTO {table} SELECT * FROM {table} {condition} LIMIT 1 RETURNING 1) SELECT count(*) FROM done"
                ),
            ),
        ] {
            sqlx::raw_sql("BEGIN").execute(&mut *session).await.unwrap();
            let counted = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql)).fetch_one(&mut *session).await;
            sqlx::raw_sql("ROLLBACK").execute(&mut *session).await.unwrap();
            if counted.is_ok_and(|count| count > 0) {
                reached.push(format!("{table} {verb}"));
            }
        }
    }
    reached
}

#[tokio::test]
async fn partitions_of_migrations_show_no_other_tenants_rows() {
    let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", PARTITIONED), ("3_c.sql", INHERITED)]);
    let Some(fixture) = folder.fixture(Model::Pool).await else { return };
    let [one, two] = [bare(), bare()];
    let made = [ensured(&fixture, &one).await, ensured(&fixture, &two).await];
    let mut sessions = Vec::new();
    for (spec, made) in [&one, &two].into_iter().zip(&made) {
        let mut session = log_in(&fixture, spec, &made.outputs).await.unwrap();
        for day in [1, 11] {
            let sql = format!("INSERT INTO events VALUES ('{}', 'e{day}', {day})", spec.tenant.id);
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut session).await.unwrap();
        }
        for table in ["base", "child"] {
            let sql = format!("INSERT INTO {table} VALUES ('{}', '{table}')", spec.tenant.id);
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut session).await.unwrap();
        }
        sessions.push(session);
    }
    let own: i64 =
        sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&mut sessions[0]).await.unwrap();
    assert_eq!(own, 2, "a tenant sees its rows in every partition");
    let other = two.tenant.id.to_string();
    assert_eq!(reached(&mut sessions[0], &fixture, &other).await, [""; 0]);
    assert_eq!(leaks(&fixture, &[&one, &two]).await, [""; 0]);

    // A registry of an earlier version has partitions with privileges and without row level security.
    let tenants = format!("{}_tenants", fixture.app_role());
    let open = format!(
        "ALTER TABLE tenantry_pool.events_1 DISABLE ROW LEVEL SECURITY; GRANT SELECT, DELETE ON tenantry_pool.events_1 TO {tenants}"
    );
    let mut administrator = crate::postgres::connect(fixture.url()).await;
    sqlx::raw_sql(AssertSqlSafe(open)).execute(&mut administrator).await.unwrap();
    assert_eq!(
        reached(&mut sessions[0], &fixture, &other).await,
        ["tenantry_pool.events_1 read", "tenantry_pool.events_1 deleted"]
    );
    let found = leaks(&fixture, &[&one, &two]).await;
    for what in [
        "partitions: tenantry_pool.events_1",
        "rows: tenantry_pool.events_1",
        "delete: tenantry_pool.events_1",
    ] {
        assert!(found.iter().any(|leak| leak == what), "{what} in {found:?}");
    }
    fixture.another().ensure(&fixture.world.context(), &one).await.unwrap();
    assert_eq!(reached(&mut sessions[0], &fixture, &other).await, [""; 0]);
}

#[tokio::test]
async fn files_that_reach_outside_of_their_place_are_rejected() {
    const OUTSIDE: [(&str, &str); 13] = [
        ("CREATE TABLE IF NOT EXISTS shared.x (a int);", "table shared.x"),
        ("CREATE FUNCTION shared.f() RETURNS int LANGUAGE sql AS 'SELECT 1';", "function shared.f()"),
        ("CREATE TYPE shared.mood AS ENUM ('a');", "type shared.mood"),
        ("CREATE SCHEMA beside;", "schema beside"),
        ("CREATE INDEX by_a ON shared.foreign_table (a);", "index shared.by_a"),
        ("CREATE VIEW shared.v AS SELECT 1 AS a;", "view shared.v"),
        ("GRANT SELECT ON shared.foreign_table TO PUBLIC;", "table shared.foreign_table"),
        (
            "DO $$ BEGIN BEGIN CREATE TABLE shared.y (a int); EXCEPTION WHEN others THEN NULL; END; END $$;",
            "table shared.y",
        ),
        ("SELECT lo_create(0);", "large object"),
        ("INSERT INTO shared.foreign_table VALUES (1);", "rows of table shared.foreign_table"),
        // It has none of these rows now.
        ("DELETE FROM shared.foreign_table WHERE a = 7;", "rows of table shared.foreign_table"),
        ("DROP TABLE shared.foreign_table;", "an object that existed before"),
        ("DO $$ BEGIN CREATE ROLE role_of_a_file; END $$;", "a role"),
    ];
    for model in [Model::Pool, Model::Schema] {
        for (sql, object) in OUTSIDE {
            let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", sql)]);
            let Some(fixture) = folder.fixture(model).await else { return };
            fixture.sql("CREATE SCHEMA shared").await;
            fixture.sql("CREATE TABLE shared.foreign_table (a int)").await;
            let failure = fixture.provider.ensure(&fixture.world.context(), &bare()).await.unwrap_err();
            is(&failure, Fatal, "bad_migration");
            assert!(
                failure.message.contains(&format!("2_b.sql:1: creates or changes {object}")),
                "{model:?}: {failure}"
            );
            let left = fixture
                .sql("SELECT count(*) FROM pg_class WHERE relname IN ('x', 'y', 'v', 'by_a', 't')")
                .await;
            assert_eq!(left[0].get::<i64, _>(0), 0, "{model:?}: {sql}: nothing of the files stays");
            // The corrected file replaces the rejected one.
            folder.migration("2_b.sql", "CREATE INDEX t_by_n ON t (tenant_id, n);");
            fixture.another().ensure(&fixture.world.context(), &bare()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn all_faults_of_all_files_are_named_at_once() {
    let files = [
        ("1_a.sql", TABLE),
        ("2_b.sql", "CREATE TABLE shared.x (a int);\n\nCREATE VIEW v AS SELECT * FROM t;"),
        (
            "3_c.sql",
            "SELECT 1;\nCREATE FUNCTION f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM t';",
        ),
        (
            "4_d.sql",
            "CREATE TABLE keyless (a int); CREATE TABLE numbered (tenant_id bigint PRIMARY KEY);\n\
             CREATE TABLE late (tenant_id text, id text PRIMARY KEY);\n\
             ALTER TABLE late DROP CONSTRAINT late_pkey, ADD PRIMARY KEY (tenant_id, id);\n\
             CREATE UNIQUE INDEX t_n ON t (n);",
        ),
        ("5_e.sql", "SELECT 1;\nSELEC 1;"),
    ];
    let folder = Folder::new(&files);
    let Some(fixture) = folder.fixture(Model::Pool).await else { return };
    fixture.sql("CREATE SCHEMA shared").await;
    let failure = fixture.provider.probe().await.unwrap_err();
    for fault in [
        "the set `postgres/app` has 8 faults:",
        "2_b.sql:1: creates or changes table shared.x",
        "2_b.sql:3: view `v` shows every tenant's rows",
        "3_c.sql:2: function `f` runs as its owner",
        "4_d.sql:1: table `keyless` cannot be shared",
        "4_d.sql:1: table `keyless` needs a primary key",
        "4_d.sql:1: table `numbered` cannot be shared by tenants: the type of its `tenant_id` is bigint, but must be text or uuid",
        "4_d.sql:4: table `t`: every unique index must begin",
        "5_e.sql:2: PostgreSQL rejected a statement (SQLSTATE 42601",
    ] {
        assert!(failure.message.contains(fault), "{fault} in {failure}");
    }
}

/// A product that becomes one of many tenants adds `tenant_id` to its tables in a later file.
#[tokio::test]
async fn a_later_file_may_correct_the_tables_of_an_earlier_one() {
    let folder = Folder::new(&[
        ("1_a.sql", "CREATE TABLE t (id text PRIMARY KEY, n integer);"),
        (
            "2_b.sql",
            "ALTER TABLE t ADD tenant_id text NOT NULL, DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (tenant_id, id);",
        ),
    ]);
    let Some(fixture) = folder.fixture(Model::Pool).await else { return };
    let [one, two] = [bare(), bare()];
    let made = ensured(&fixture, &one).await;
    ensured(&fixture, &two).await;
    let mut session = log_in(&fixture, &one, &made.outputs).await.unwrap();
    sqlx::raw_sql("INSERT INTO t (id) VALUES ('a')").execute(&mut session).await.unwrap();
    assert_eq!(leaks(&fixture, &[&one, &two]).await, [""; 0]);
}

#[tokio::test]
async fn objects_that_bypass_policies_are_rejected() {
    for (sql, why) in [
        ("CREATE RULE copies AS ON INSERT TO t DO ALSO SELECT * FROM t;", "rule `copies`"),
        ("CREATE FUNCTION f(int) RETURNS boolean LANGUAGE sql LEAKPROOF AS 'SELECT true';", "LEAKPROOF"),
        ("GRANT ALL ON t TO PUBLIC;", "TRUNCATE bypasses the policies"),
        ("GRANT SELECT ON t TO PUBLIC;", "SELECT on `t` is granted to PUBLIC"),
        ("GRANT UPDATE (id) ON t TO PUBLIC;", "UPDATE on `t` is granted to PUBLIC"),
        ("CREATE SEQUENCE s; GRANT ALL ON SEQUENCE s TO PUBLIC;", "sequence `s`"),
        ("GRANT REFERENCES (id) ON t TO PUBLIC;", "column `id`"),
    ] {
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", sql)]);
        let Some(fixture) = folder.fixture(Model::Pool).await else { return };
        let failure = fixture.provider.probe().await.unwrap_err();
        is(&failure, Fatal, "bad_migration");
        assert!(failure.message.contains("2_b.sql:1: ") && failure.message.contains(why), "{failure}");
    }
}

/// What belongs to another role is checked and fired with its rights, which are none in a tenant's database.
#[tokio::test]
async fn objects_that_are_given_to_another_role_are_rejected() {
    for model in MODELS {
        for sql in [
            "ALTER TABLE t OWNER TO other_role",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO other_role",
            "CREATE TYPE kind AS ENUM ('a'); ALTER TYPE kind OWNER TO other_role",
        ] {
            let given = format!("DO $$ BEGIN {}; END $$;", sql);
            let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", &given)]);
            let Some(fixture) = folder.fixture(model).await else { return };
            fixture.sql("DO $$ BEGIN CREATE ROLE other_role; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$").await;
            let failure = fixture.provider.probe().await.unwrap_err();
            is(&failure, Fatal, "bad_migration");
            let why = "belongs to the role `other_role`";
            assert!(
                failure.message.contains("2_b.sql:1: ") && failure.message.contains(why),
                "{model:?}: {failure}"
            );
        }
    }
}

/// A unique index that fails on the rows of a tenant leaves an invalid index behind.
#[tokio::test]
async fn an_index_that_failed_is_never_recorded_as_made() {
    for model in MODELS {
        let folder = Folder::new(&[("1_a.sql", TABLE)]);
        let Some(fixture) = folder.fixture(model).await else { return };
        let spec = bare();
        ensured(&fixture, &spec).await;
        let rows = fixture.provider.data().unwrap().scoped(spec.tenant.id);
        for id in ["a", "b"] {
            let row = serde_json::json!({ "id": id, "n": 7 });
            rows.insert("t", row.as_object().unwrap().clone()).await.unwrap();
        }
        folder.migration(
            "2_b.sql",
            "-- no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS t_n ON t (tenant_id, n);",
        );
        for _ in 0..2 {
            let failure = fixture.another().ensure(&fixture.world.context(), &spec).await.unwrap_err();
            is(&failure, Fatal, "bad_migration");
            assert!(
                failure.message.contains("2_b.sql") && failure.message.contains("23505"),
                "{model:?}: {failure}"
            );
        }
        rows.delete("t", "b").await.unwrap();
        fixture.another().ensure(&fixture.world.context(), &spec).await.unwrap();
        let duplicate = serde_json::json!({ "id": "c", "n": 7 });
        let rows = fixture.another();
        let rows = rows.data().unwrap().scoped(spec.tenant.id);
        let refused = rows.insert("t", duplicate.as_object().unwrap().clone()).await.unwrap_err();
        assert_eq!(refused.code, "constraint", "{model:?}");
    }
}

/// What one tenant refuses, because of its rows, another may have accepted before.
#[tokio::test]
async fn a_corrected_file_replaces_the_text_that_some_tenants_refuse() {
    for model in [Model::Schema, Model::Database] {
        let folder = Folder::new(&[("1_a.sql", TABLE)]);
        let Some(fixture) = folder.fixture(model).await else { return };
        let [accepts, refuses, later] = [bare(), bare(), bare()];
        ensured(&fixture, &accepts).await;
        ensured(&fixture, &refuses).await;
        let rows = fixture.provider.data().unwrap().scoped(refuses.tenant.id);
        for id in ["a", "b"] {
            let row = serde_json::json!({ "id": id, "n": 7 });
            rows.insert("t", row.as_object().unwrap().clone()).await.unwrap();
        }
        folder.migration("2_b.sql", "CREATE UNIQUE INDEX first ON t (n);");
        fixture.another().ensure(&fixture.world.context(), &accepts).await.unwrap();
        let failure = fixture.another().ensure(&fixture.world.context(), &refuses).await.unwrap_err();
        is(&failure, Fatal, "bad_migration");

        let corrected = "CREATE UNIQUE INDEX second ON t (n, id);";
        folder.migration("2_b.sql", corrected);
        let failure = fixture.another().ensure(&fixture.world.context(), &refuses).await.unwrap_err();
        is(&failure, Fatal, "migration_changed");
        let line =
            failure.message.split('`').find(|part| part.starts_with("-- replaces: ")).expect("the line");
        folder.migration("2_b.sql", &format!("{line}\n{corrected}"));
        folder.migration("3_c.sql", "ALTER TABLE t ADD COLUMN m int;");
        let provider = fixture.another();
        for spec in [&refuses, &accepts, &later] {
            provider.ensure(&fixture.world.context(), spec).await.unwrap();
        }
        let differs =
            async |spec: &Spec| match provider.observe(&fixture.world.context(), spec).await.unwrap() {
                Observed::Present { differs, .. } => differs,
                other => panic!("{model:?}: {other:?}"),
            };
        assert_eq!(differs(&refuses).await, [""; 0], "{model:?}");
        assert_eq!(differs(&later).await, [""; 0], "{model:?}");
        let named = differs(&accepts).await;
        assert!(named.len() == 1 && named[0].contains("an earlier text of 2_b.sql"), "{model:?}: {named:?}");
        for (spec, index) in [(&accepts, "first"), (&refuses, "second"), (&later, "second")] {
            let (url, schema) = match model {
                Model::Database => (on_server(fixture.url(), &spec.name), "public"),
                _ => (fixture.url().to_owned(), &*spec.name),
            };
            let sql = format!(
                "SELECT indexname::text FROM pg_indexes WHERE schemaname = '{schema}' AND tablename = 't' AND indexname <> 't_pkey'"
            );
            let mut session = crate::postgres::connect(&url).await;
            let found: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut session).await.unwrap();
            assert_eq!(found, [index], "{model:?}");
        }
    }
}

/// Every login of a database can LISTEN to every channel, so a payload reaches other tenants.
#[tokio::test]
async fn functions_that_notify_are_rejected_where_tenants_share_a_database() {
    for body in [
        "PERFORM PG_Notify('changes', NEW.id);",
        "NOTIFY changes, 'changed';",
        "EXECUTE format('NOTIFY changes, %L', NEW.id);",
    ] {
        rejected_where_tenants_share_a_database(body).await;
    }
}

async fn rejected_where_tenants_share_a_database(body: &str) {
    let notifies = format!(
        "CREATE TABLE u (tenant_id text NOT NULL, id text NOT NULL, PRIMARY KEY (tenant_id, id));
        CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN {body} RETURN NEW; END $$;
        CREATE TRIGGER tell AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION tell();"
    );
    for model in MODELS {
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", &notifies)]);
        let Some(mut fixture) = folder.fixture(model).await else { return };
        let made = fixture.provider.ensure(&fixture.world.context(), &bare()).await;
        if model == Model::Database {
            made.unwrap();
            continue;
        }
        let failure = made.unwrap_err();
        is(&failure, Fatal, "bad_migration");
        assert!(
            failure.message.contains("2_b.sql:2: function `tell` calls pg_notify"),
            "{model:?}: {failure}"
        );
        fixture.reconfigure(|config| config.pg_notify = PgNotify::Allow);
        fixture.provider.ensure(&fixture.world.context(), &bare()).await.unwrap();
    }
}

/// An extension that a file puts into `pg_catalog` belongs to the database, and so to its one tenant.
#[tokio::test]
async fn a_tenants_own_database_may_have_extensions() {
    let file = "CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA pg_catalog;
        CREATE TABLE u (id citext PRIMARY KEY);";
    for plain in [false, true] {
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", file)]);
        let fixture = match plain {
            false => Fixture::of(Model::Database).await,
            true => Fixture::with_plain_administrator(Model::Database).await,
        };
        let Some(mut fixture) = fixture else { return };
        fixture.reconfigure(|config| {
            config.migrations = Some(folder.path().to_owned());
            config.seeds = Some(folder.path().to_owned());
        });
        let spec = bare();
        let context = fixture.world.context();
        fixture.provider.ensure(&context, &spec).await.unwrap();
        let seen = fixture.provider.observe(&context, &spec).await.unwrap();
        assert!(matches!(&seen, Observed::Present { differs, .. } if differs.is_empty()), "{seen:?}");
    }
}
