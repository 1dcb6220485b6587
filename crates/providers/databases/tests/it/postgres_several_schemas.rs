//! A database of a tenant's own may have several schemas: objects in each of them are created, granted, copied, compared,
//! fenced, counted and removed as those in `public` are.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tenantry_databases::migrations::PublicSchema;
use tenantry_model::FailureClass::Fatal;
use tenantry_model::suspension::SuspensionMode;
use tenantry_provider::{Outcome, Provider, Spec};

use crate::contract::transfer::{ContentEnvironment, Export, must_keep_content};
use crate::postgres::{Fixture, Model, ensured, log_in, refused};
use crate::postgres_any_schema::AnySchema;
use crate::postgres_drift::differs;
use crate::postgres_failures::{Folder, TABLE, bare, is};
use crate::postgres_fences::fence;
use crate::postgres_warm_pool::filled;
use crate::world::{World, object};

const TABLES: &str = include_str!("postgres_several_schemas/tables.sql");
const ROWS: &str = include_str!("postgres_several_schemas/rows.sql");

/// A folder and a database for each tenant.
struct Several(AnySchema);

impl Several {
    /// As a superuser and as an administrator with few privileges.
    async fn all(tables: &str) -> Vec<Self> {
        let all = AnySchema::all(tables).await;
        all.into_iter().filter(|it| it.fixture.model == Model::Database).map(Self).collect()
    }

    /// All rows by table, the positions of sequences and the states of triggers and constraints, read without Tenantry.
    async fn dump(&self, spec: &Spec) -> BTreeMap<String, String> {
        let mut connection = self.0.inside(spec).await;
        let sources = "SELECT format('%s %I.%I', CASE relkind WHEN 'r' THEN 'ONLY' ELSE '' END, nspname, relname) FROM pg_class
            JOIN pg_namespace n ON n.oid = relnamespace
            WHERE nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema') AND relkind IN ('r', 'p', 'm', 'S') AND NOT relispartition AND relname !~ '^_migrations'
            UNION ALL SELECT '(SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal)'
            UNION ALL SELECT '(SELECT ev_class::regclass, rulename, ev_enabled FROM pg_rewrite WHERE rulename <> ''_RETURN'')'
            UNION ALL SELECT '(SELECT connamespace::regnamespace, conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace <> ''pg_catalog''::regnamespace)'";
        let sources: Vec<String> = sqlx::query_scalar(sources).fetch_all(&mut connection).await.unwrap();
        let mut dump = BTreeMap::new();
        for source in sources {
            let row = match source.contains("_seq") || source.contains("tickets") {
                true => "(entire.last_value, entire.is_called)",
                false => "entire",
            };
            let sql = format!(
                "SELECT coalesce(string_agg({row}::text, E'\\n' ORDER BY {row}::text), '') FROM {source} entire"
            );
            let rows = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
            dump.insert(source, rows);
        }
        dump
    }
}

#[async_trait]
impl ContentEnvironment for Several {
    fn provider(&self) -> &dyn Provider {
        &*self.0.fixture.provider
    }
    fn world(&self) -> &World {
        &self.0.fixture.world
    }
    fn settings(&self) -> Value {
        json!({ "seed": "defaults" })
    }
    async fn fill(&self, spec: &Spec, word: &str) {
        self.0.run(spec, &ROWS.replace("WORD", word)).await;
    }
}

#[tokio::test]
async fn every_schema_survives_a_round_trip() {
    for environment in Several::all(TABLES).await {
        must_keep_content(&environment).await;
        let (old, new) = (environment.tenant().await, environment.tenant().await);
        environment.fill(&old, "word").await;
        environment.fill(&new, "other").await;
        let before = environment.dump(&old).await;
        let (export, content) = environment.export(&old).await;
        for (table, rows) in [
            ("notes", 3),
            ("audit.notes", 2),
            ("audit.log", 7),
            ("audit.events", 2),
            ("audit.ages", 1),
            ("My Schema.heirs", 1),
            ("My Schema.Odd \" table", 2),
            ("größe, 漢 \"🎉\"..inner_table", 1),
        ] {
            assert_eq!(content.counts.get(table), Some(&rows), "{table}: {:?}", content.counts);
        }
        let paths: Vec<&str> = export.0.iter().map(|(path, _)| &**path).collect();
        assert!(paths.contains(&"audit.log.000001.csv") && paths.contains(&"notes.000001.csv"), "{paths:?}");
        environment.load(&new, &mut export.source()).await.unwrap();
        let after = environment.dump(&new).await;
        for (source, rows) in &before {
            assert_eq!(after.get(source), Some(rows), "{source}");
        }
        assert_eq!(environment.dump(&old).await, before, "an export changes nothing");
        assert_eq!(environment.content(&new).await, content);

        let removed =
            environment.provider().remove(&environment.world().context(), &old).await.unwrap().receipt;
        let rows = |table: &str| removed["rows"][table].as_u64();
        assert_eq!(
            ["notes", "audit.log", "audit.notes"].map(rows),
            [Some(3), Some(7), Some(2)],
            "{removed:#}"
        );
    }
}

/// Keys that refer to rows of another schema are checked after a load, and archives name schemas exactly.
#[tokio::test]
async fn archives_that_do_not_fit_the_schemas_are_rejected() {
    for environment in Several::all(TABLES).await {
        let spec = environment.tenant().await;
        environment.fill(&spec, "word").await;
        let before = environment.dump(&spec).await;
        for (path, text, why) in [
            ("audit.eggs.000001.csv", "\"id\",\"nest\"\n1,7\n", "do not fit"),
            ("billing.invoices.000001.csv", "\"id\"\n1\n", "has no table `billing.invoices`"),
            // A table of the main schema whose name has a dot.
            ("audit%2elog.000001.csv", "\"what\"\n\"x\"\n", "has no table `audit.log`"),
            ("audit.log.000001.csv", "\"value\"\n\"x\"\n", "has no column `value`"),
            (
                "sequences.csv",
                "\"sequence\",\"last_value\",\"is_called\"\n\"tickets\",\"7\",\"true\"\n",
                "no sequence `tickets`",
            ),
            (
                "sequences.csv",
                "\"schema\",\"sequence\",\"last_value\",\"is_called\"\n\"billing\",\"tickets\",\"7\",\"true\"\n",
                "no sequence `billing.tickets`",
            ),
        ] {
            let export = Export(vec![(path.to_owned(), text.as_bytes().to_vec())]);
            let refused = environment.load(&spec, &mut export.source()).await.unwrap_err();
            assert_eq!(refused.code, "bad_archive", "{refused}");
            assert!(refused.message.contains(why), "{why}: {refused}");
            assert_eq!(environment.dump(&spec).await, before);
        }
        // Without positions, as from shared tables or an earlier release, sequences follow the rows.
        let export = Export(vec![
            ("audit.log.000001.csv".to_owned(), b"\"id\",\"what\"\n41,\"x\"\n".to_vec()),
            ("notes.000001.csv".to_owned(), b"\"id\"\n\"y\"\n".to_vec()),
        ]);
        environment.load(&spec, &mut export.source()).await.unwrap();
        let added = "INSERT INTO audit.log DEFAULT VALUES RETURNING id::text";
        assert_eq!(environment.0.texts(&spec, added).await, ["42"]);
    }
}

/// The login writes and reads every schema, also those of later files, as far as the tenant's fence lets it.
#[tokio::test]
async fn logins_and_fences_reach_every_schema() {
    for (fixture, warm) in [
        (Fixture::of(Model::Database).await, true),
        (Fixture::with_plain_administrator(Model::Database).await, false),
    ] {
        let Some(mut fixture) = fixture else { return };
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", TABLES)]);
        let path = folder.path().to_owned();
        fixture.reconfigure(|config| (config.migrations, config.seeds) = (Some(path.clone()), Some(path)));
        if warm {
            filled(&fixture, 1).await;
        }
        let spec = bare();
        let made = ensured(&fixture, &spec).await;
        let mut session = log_in(&fixture, &spec, &made.outputs).await.unwrap();
        let write = "INSERT INTO audit.notes (n) VALUES (1); UPDATE \"My Schema\".\"Odd \"\" table\" SET note = NULL; DELETE FROM audit.events";
        sqlx::raw_sql(write).execute(&mut session).await.unwrap();
        let count = async |session: &mut PgConnection, sql: &str| -> i64 {
            sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(session).await.unwrap()
        };
        assert_eq!(count(&mut session, "SELECT audit.counted()").await, 1);
        refused(&mut session, "CREATE TABLE audit.mine (a int)", "42501").await;

        fence(&fixture, &spec, Some(SuspensionMode::ReadOnly), 1).await;
        for sql in [
            "INSERT INTO audit.notes (n) VALUES (1)",
            "UPDATE audit.log SET what = 'x'",
            "DELETE FROM \"My Schema\".nests",
            "SELECT nextval('audit.tickets')",
            "SELECT audit.counted()",
        ] {
            refused(&mut session, sql, "42501").await;
        }
        assert_eq!(count(&mut session, "SELECT count(*) FROM audit.log").await, 1);
        assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, [""; 0]);
        folder.migration(
            "3_c.sql",
            "CREATE SCHEMA late; CREATE TABLE late.t (id serial); CREATE TABLE audit.late (id int);",
        );
        fixture.reconfigure(|_| {});
        ensured(&fixture, &spec).await;
        for sql in ["INSERT INTO late.t DEFAULT VALUES", "DELETE FROM audit.late"] {
            refused(&mut session, sql, "42501").await;
        }
        fence(&fixture, &spec, None, 2).await;
        sqlx::raw_sql("INSERT INTO late.t DEFAULT VALUES; DELETE FROM audit.late")
            .execute(&mut session)
            .await
            .unwrap();
        let other = bare();
        ensured(&fixture, &other).await;
        for spec in [&spec, &other] {
            assert_eq!(differs(&*fixture.provider, &fixture, spec).await, [""; 0]);
        }
        let ids = [spec.tenant.id, other.tenant.id];
        let cells = fixture.provider.isolation().unwrap().check(&ids).await.unwrap().cells;
        let leak = cells.iter().find(|cell| cell.outcome == Outcome::Leak);
        assert!(leak.is_none(), "{leak:?}");
    }
}

#[tokio::test]
async fn drift_is_found_in_every_schema() {
    for environment in Several::all(TABLES).await {
        let (fixture, spec) = (&environment.0.fixture, environment.tenant().await);
        let name = &spec.name;
        for (harm, word, is_repaired) in [
            (format!("REVOKE USAGE ON SCHEMA audit FROM \"{name}\""), "may not use the schema `audit`", true),
            (
                format!("REVOKE INSERT ON audit.log FROM \"{name}\""),
                "has lost INSERT on table `audit.log`",
                true,
            ),
            (
                format!("REVOKE USAGE ON SEQUENCE audit.tickets FROM \"{name}\""),
                "sequence `audit.tickets`",
                true,
            ),
            (
                format!("REVOKE EXECUTE ON FUNCTION audit.counted() FROM \"{name}\""),
                "function `audit.counted`",
                true,
            ),
            (
                "ALTER TABLE audit.notes ADD more int".to_owned(),
                "table `notes` in `audit`, column `more` was added",
                false,
            ),
            ("ALTER TABLE audit.notes DROP more".to_owned(), "", false),
            ("ALTER TYPE audit.level ADD VALUE 'worse'".to_owned(), "type `level` in `audit`", false),
            ("CREATE SCHEMA beside".to_owned(), "schema `beside` was added", false),
            ("DROP SCHEMA \"My Schema\" CASCADE".to_owned(), "schema `My Schema` is missing", false),
        ] {
            let before = differs(&*fixture.provider, fixture, &spec).await;
            environment.0.run(&spec, &harm).await;
            let said = differs(&*fixture.another(), fixture, &spec).await;
            assert!(said.iter().any(|said| said.contains(word)) || word.is_empty(), "{harm}: {said:?}");
            if is_repaired {
                ensured(fixture, &spec).await;
                assert_eq!(differs(&*fixture.provider, fixture, &spec).await, before, "{harm}");
            }
        }
    }
}

#[tokio::test]
async fn the_data_api_and_seeds_reach_every_schema() {
    for environment in Several::all(TABLES).await {
        let spec = environment.tenant().await;
        let rows = environment.provider().data().unwrap().scoped(spec.tenant.id);
        let id = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        let added = rows.insert("audit.notes", object(json!({ "id": id, "n": 3 }))).await.unwrap();
        assert_eq!(added, json!({ "id": id, "n": 3, "ticket": 7 }));
        assert_eq!(rows.list("audit.notes", 10, None).await.unwrap().rows, std::slice::from_ref(&added));
        assert_eq!(rows.get("audit.notes", id).await.unwrap(), Some(added));
        assert!(rows.delete("audit.notes", id).await.unwrap());
        assert_eq!(
            rows.list("notes", 10, None).await.unwrap().rows,
            [json!({ "id": "first", "value": "Hello" })]
        );
        assert_eq!(rows.get("log", "1").await.unwrap_err().code, "unknown_table");
    }
    let folder = Folder::new(&[
        ("1_a.sql", TABLE),
        ("2_b.sql", "CREATE SCHEMA audit; CREATE TABLE audit.kinds (id text PRIMARY KEY, n int);"),
    ]);
    std::fs::create_dir_all(folder.path().join("start")).unwrap();
    let seed = "[{table: audit.kinds, rows: [{id: a, n: 1}, {id: b, n: 2}]}]";
    std::fs::write(folder.path().join("start/en.yaml"), seed).unwrap();
    let Some(fixture) = folder.fixture(Model::Database).await else { return };
    let spec = crate::world::spec(json!({ "seed": "start" }));
    ensured(&fixture, &spec).await;
    let rows = fixture.provider.data().unwrap().scoped(spec.tenant.id);
    assert_eq!(rows.list("audit.kinds", 10, None).await.unwrap().rows.len(), 2);
}

/// A dump names every object with its schema.
#[tokio::test]
async fn a_dump_with_several_schemas_is_applied() {
    const DUMP: &str = "SELECT pg_catalog.set_config('search_path', '', false);
        CREATE SCHEMA audit;
        COMMENT ON SCHEMA audit IS 'what happened';
        CREATE SCHEMA IF NOT EXISTS public;
        CREATE TYPE audit.mood AS ENUM ('good');
        CREATE TABLE public.users (id bigint NOT NULL, mood audit.mood DEFAULT 'good'::audit.mood);
        CREATE SEQUENCE public.users_id_seq START WITH 1 OWNED BY public.users.id;
        ALTER TABLE ONLY public.users ALTER COLUMN id SET DEFAULT nextval('public.users_id_seq'::regclass);
        ALTER TABLE ONLY public.users ADD CONSTRAINT users_pkey PRIMARY KEY (id);
        CREATE TABLE audit.log (id bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY, user_id bigint,
            CONSTRAINT log_user FOREIGN KEY (user_id) REFERENCES public.users(id) DEFERRABLE INITIALLY DEFERRED);
        CREATE VIEW audit.named AS SELECT users.id, log.id AS log FROM (audit.log JOIN public.users ON ((users.id = log.user_id)));
        CREATE INDEX log_user_id ON audit.log USING btree (user_id);";
    let folder = Folder::new(&[
        ("1_a.sql", TABLE),
        ("2_b.sql", DUMP),
        ("3_c.sql", "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS late ON audit.log (id);"),
        ("4_d.sql", "ALTER TABLE audit.log ADD note text;"),
    ]);
    let path = folder.path().to_owned();
    let fixture = Fixture::with(Model::Database, |config| {
        (config.migrations, config.seeds) = (Some(path.clone()), Some(path));
        config.public_schema = PublicSchema::Rewrite;
    });
    let Some(fixture) = fixture.await else { return };
    let spec = bare();
    let made = ensured(&fixture, &spec).await;
    let mut session = log_in(&fixture, &spec, &made.outputs).await.unwrap();
    sqlx::raw_sql("INSERT INTO public.users DEFAULT VALUES; INSERT INTO audit.log (user_id) VALUES (1)")
        .execute(&mut session)
        .await
        .unwrap();
    let named = sqlx::query("SELECT mood::text FROM audit.named JOIN users USING (id)")
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!(named.get::<String, _>(0), "good");
    assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, [""; 0]);
}

/// What must not be, in any schema, with the line that causes it.
#[tokio::test]
async fn faults_are_found_in_every_schema() {
    for (sql, line, why) in [
        (
            "CREATE FUNCTION audit.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';",
            2,
            "function `audit.f` runs as the administrator",
        ),
        ("CREATE VIEW audit.v AS SELECT rolname FROM pg_authid;", 2, "`audit.v` reaches"),
        (
            "CREATE TABLE audit.a (a int);\nGRANT SELECT ON audit.a TO PUBLIC;",
            3,
            "SELECT on `audit.a` is granted to PUBLIC",
        ),
        ("GRANT USAGE ON SCHEMA audit TO PUBLIC;", 2, "USAGE on the schema `audit` is granted to PUBLIC"),
        (
            "ALTER DEFAULT PRIVILEGES IN SCHEMA audit GRANT SELECT ON TABLES TO PUBLIC;",
            2,
            "default privileges for `PUBLIC`",
        ),
        (
            "CREATE TABLE audit.a (a int PRIMARY KEY, b int REFERENCES audit.a DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO audit.a VALUES (1, 2);",
            3,
            "foreign key",
        ),
        ("CREATE TABLE audit.log (a int);\nCREATE TABLE \"audit.log\" (a int);", 3, "both named `audit.log`"),
        (
            "DO $$ BEGIN EXECUTE 'CREATE TABLE audit._migr' || 'ations (a int)'; END $$;",
            2,
            "`audit._migrations`: `_migrations` is the name",
        ),
        ("CREATE TABLE extensions.a (a int);", 2, "schema \"extensions\" does not exist"),
        ("CREATE TABLE information_schema.a (a int);", 2, "table information_schema.a, which is outside"),
    ] {
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", &format!("CREATE SCHEMA audit;\n{sql}"))]);
        let Some(fixture) = folder.fixture(Model::Database).await else { return };
        let failure = fixture.provider.probe().await.unwrap_err();
        is(&failure, Fatal, "bad_migration");
        let expected = format!("2_b.sql:{line}: ");
        assert!(
            failure.message.contains(&expected) && failure.message.contains(why),
            "{sql}: {why}: {failure}"
        );
    }
    for model in [Model::Pool, Model::Schema] {
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", "SELECT 1;\nCREATE SCHEMA audit;")]);
        let Some(fixture) = folder.fixture(model).await else { return };
        let failure = fixture.provider.probe().await.unwrap_err();
        is(&failure, Fatal, "bad_migration");
        for part in ["2_b.sql:2: creates or changes schema audit", "use the isolation `database`"] {
            assert!(failure.message.contains(part), "{part}: {failure}");
        }
    }
}

/// A schema that another role has made in a tenant's database is not the tenant's: its objects get no privileges, and its
/// tables stop what would lose them.
#[tokio::test]
async fn schemas_of_other_roles_are_not_the_tenants() {
    let Some(fixture) = Fixture::with_plain_administrator(Model::Database).await else { return };
    let (spec, made) = crate::postgres::make(&fixture).await;
    let server = std::env::var("TENANTRY_TEST_POSTGRES").unwrap();
    let mut superuser =
        crate::postgres::connect(&tenantry_testkit::database::on_server(&server, &spec.name)).await;
    let tools = "CREATE SCHEMA tools; CREATE FUNCTION tools.f() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text';
        REVOKE ALL ON FUNCTION tools.f() FROM PUBLIC";
    sqlx::raw_sql(tools).execute(&mut superuser).await.unwrap();
    ensured(&fixture, &spec).await;
    fence(&fixture, &spec, None, 1).await;
    let mut session = log_in(&fixture, &spec, &made.outputs).await.unwrap();
    refused(&mut session, "SELECT tools.f()", "42501").await;
    assert_eq!(
        differs(&*fixture.provider, &fixture, &spec).await,
        ["schema `tools` was added outside the migrations"]
    );
    let (transfer, context) = (fixture.provider.transfer().unwrap(), fixture.world.context());
    transfer.export(&context, &spec, &mut Export::default()).await.unwrap();
    sqlx::raw_sql("CREATE TABLE tools.kept (a int)").execute(&mut superuser).await.unwrap();
    let stopped = transfer.export(&context, &spec, &mut Export::default()).await.unwrap_err();
    is(&stopped, Fatal, "bad_schema");
    assert!(
        stopped.message.contains("`tools.kept` is in a schema that is not the administrator's"),
        "{stopped}"
    );
    let how = stopped.message.split("run ").nth(1).unwrap().split(", or").next().unwrap().to_owned();
    sqlx::raw_sql(AssertSqlSafe(format!(
        "{how}; ALTER TABLE tools.kept OWNER TO \"admin_{}\"",
        fixture.url().rsplit('/').next().unwrap()
    )))
    .execute(&mut superuser)
    .await
    .unwrap();
    let content = transfer.export(&context, &spec, &mut Export::default()).await.unwrap();
    assert_eq!(content.counts["tools.kept"], 0);
}
