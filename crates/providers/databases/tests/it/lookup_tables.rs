//! Tables that a file marks `-- tenantry: lookup`: all tenants of a pool read them, and none writes them.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};
use tenantry_databases::sqlite_pool::{Config, DatabaseSqlitePool};
use tenantry_model::FailureClass::Fatal;
use tenantry_provider::transfer::Content;
use tenantry_provider::{Outcome, Provider, Spec};

use crate::contract::transfer::Export;
use crate::postgres::{Fixture, MODELS, Model, connect, ensured, log_in, refused};
use crate::postgres_failures::{Folder, TABLE, bare, is};
use crate::world::{World, object};

const LOOKUPS: &str = "-- CreateTable
-- tenantry: lookup
CREATE TABLE countries (id text PRIMARY KEY, name text NOT NULL, number serial);
INSERT INTO countries (id, name) VALUES ('at', 'Austria'), ('de', 'Germany');
-- tenantry: lookup

CREATE TABLE IF NOT EXISTS \"Regions\" (id text PRIMARY KEY, country text REFERENCES countries);
INSERT INTO \"Regions\" VALUES ('w', 'at');
ALTER TABLE \"Regions\" RENAME TO areas;
CREATE TABLE places (tenant_id uuid, id text, country text REFERENCES countries, PRIMARY KEY (tenant_id, id));";

fn folder() -> Folder {
    Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", LOOKUPS)])
}

async fn export(fixture: &Fixture, spec: &Spec) -> (Export, Content) {
    let mut export = Export::default();
    let transfer = fixture.provider.transfer().unwrap();
    let content = transfer.export(&fixture.world.context(), spec, &mut export).await.unwrap();
    (export, content)
}

/// What the isolation check finds, as `WHAT OBJECT`.
async fn leaks(fixture: &Fixture, spec: &Spec) -> Vec<String> {
    let cells = fixture.provider.isolation().unwrap().check(&[spec.tenant.id]).await.unwrap().cells;
    let red = cells.into_iter().filter(|cell| cell.outcome != Outcome::Denied);
    red.flat_map(|cell| cell.found.into_iter().map(move |found| format!("{} {found}", cell.what))).collect()
}

#[tokio::test]
async fn all_tenants_read_a_lookup_table_and_none_writes_it() {
    for partitions in [0, 2] {
        let folder = folder();
        let Some(mut fixture) = folder.fixture(Model::Pool).await else { return };
        fixture.reconfigure(|config| config.partitions = partitions);
        let spec = bare();
        let made = ensured(&fixture, &spec).await;
        let mut session = log_in(&fixture, &spec, &made.outputs).await.unwrap();
        let read = "SELECT count(*) FROM countries JOIN areas ON country = countries.id";
        let read: i64 = sqlx::query_scalar(read).fetch_one(&mut session).await.unwrap();
        assert_eq!(read, 1);

        for write in [
            "INSERT INTO countries (id, name) VALUES ('x', 'x')",
            "UPDATE countries SET name = 'x'",
            "DELETE FROM areas",
            "TRUNCATE areas",
            "SELECT nextval('countries_number_seq')",
            "SELECT FROM countries FOR UPDATE",
        ] {
            refused(&mut session, write, "42501").await;
        }
        sqlx::raw_sql("INSERT INTO places (id, country) VALUES ('a', 'at')")
            .execute(&mut session)
            .await
            .unwrap();
        refused(&mut session, "INSERT INTO places (id, country) VALUES ('b', 'fr')", "23503").await;

        let rows = fixture.provider.data().unwrap().scoped(spec.tenant.id);
        let listed = rows.list("countries", 1, None).await.unwrap();
        assert_eq!(listed.rows, [json!({ "id": "at", "name": "Austria", "number": 1 })]);
        assert_eq!(rows.get("areas", "w").await.unwrap(), Some(json!({ "id": "w", "country": "at" })));
        let added = rows.insert("countries", object(json!({ "id": "x", "name": "x" }))).await.unwrap_err();
        let deleted = rows.delete("areas", "w").await.unwrap_err();
        assert_eq!([&*added.code, &*deleted.code], ["not_allowed"; 2], "{added} {deleted}");

        let (archive, content) = export(&fixture, &spec).await;
        assert_eq!(content.counts.keys().collect::<Vec<_>>(), ["places", "t"]);
        let transfer = fixture.provider.transfer().unwrap();
        transfer.load(&fixture.world.context(), &spec, &mut archive.source()).await.unwrap();
        let seen = fixture.provider.observe(&fixture.world.context(), &spec).await.unwrap();
        assert!(seen.is_healthy(), "{seen:?}");
        assert_eq!(leaks(&fixture, &spec).await, [""; 0]);

        // Rows come from files, of later releases too.
        folder.migration("3_c.sql", "INSERT INTO countries (id, name) VALUES ('ch', 'Switzerland');");
        fixture.reconfigure(|_| {});
        fixture.provider.ensure(&fixture.world.context(), &spec).await.unwrap();
        let removed = fixture.provider.remove(&fixture.world.context(), &spec).await.unwrap().receipt;
        assert_eq!(removed["rows"].as_object().unwrap().keys().collect::<Vec<_>>(), ["places", "t"]);
        let left = fixture.sql("SELECT count(*) FROM tenantry_pool.countries").await;
        assert_eq!(left[0].get::<i64, _>(0), 3);
    }
}

#[tokio::test]
async fn rights_to_write_a_lookup_table_are_found_and_revoked() {
    let folder = folder();
    let Some(fixture) = folder.fixture(Model::Pool).await else { return };
    let spec = bare();
    ensured(&fixture, &spec).await;
    let (tenants, login) = (format!("{}_tenants", fixture.app_role()), format!("\"{}\"", spec.name));
    for (plant, found, repair) in [
        (
            format!("GRANT INSERT ON tenantry_pool.countries TO {tenants}"),
            &["other_rights tenantry_pool.countries: INSERT"][..],
            String::new(),
        ),
        (
            format!("GRANT UPDATE (name) ON tenantry_pool.countries TO {login}"),
            &["other_rights tenantry_pool.countries: UPDATE"],
            format!("REVOKE UPDATE (name) ON tenantry_pool.countries FROM {login}"),
        ),
        (
            format!(
                "ALTER TABLE tenantry_pool.areas DISABLE ROW LEVEL SECURITY; GRANT DELETE ON tenantry_pool.areas TO {tenants}"
            ),
            &[
                "delete tenantry_pool.areas",
                "other_rights tenantry_pool.areas: DELETE",
                "rls_enabled tenantry_pool.areas",
            ],
            String::new(),
        ),
        (
            "ALTER POLICY tenantry_lookup ON tenantry_pool.areas USING (false)".to_owned(),
            &[
                "other_policies tenantry_pool.areas: tenantry_lookup",
                "policies tenantry_pool.areas: tenantry_lookup",
            ],
            String::new(),
        ),
    ] {
        let mut administrator = connect(fixture.url()).await;
        sqlx::raw_sql(AssertSqlSafe(plant.clone())).execute(&mut administrator).await.unwrap();
        let mut leaks = leaks(&fixture, &spec).await;
        leaks.sort_unstable();
        assert_eq!(leaks, found, "{plant}");
        if repair.is_empty() {
            let seen = fixture.provider.observe(&fixture.world.context(), &spec).await.unwrap();
            assert!(!seen.is_healthy(), "{plant}");
            fixture.provider.ensure(&fixture.world.context(), &spec).await.unwrap();
        } else {
            sqlx::raw_sql(AssertSqlSafe(repair)).execute(&mut administrator).await.unwrap();
        }
        assert_eq!(self::leaks(&fixture, &spec).await, [""; 0], "after {plant}");
    }
}

#[tokio::test]
async fn marks_that_do_not_fit_are_rejected_with_their_line() {
    let countries = "\n-- tenantry: lookup\nCREATE TABLE countries (id text PRIMARY KEY);\n";
    let after = |sql: &str| format!("{countries}{sql}");
    for (sql, fault) in [
        (
            "\n-- tenantry: lookup\nCREATE TABLE x (tenant_id text, id text, PRIMARY KEY (tenant_id, id));"
                .to_owned(),
            "2_b.sql:3: table `x` is marked `tenantry: lookup`, but has a column `tenant_id`",
        ),
        (
            "-- tenantry: lookup\nCREATE INDEX i ON t (tenant_id, n);".to_owned(),
            "2_b.sql:1: the mark `tenantry: lookup` stands before no CREATE TABLE",
        ),
        (
            after("CREATE TABLE x (id text PRIMARY KEY);"),
            "2_b.sql:4: table `x` cannot be shared by tenants: it needs a column `tenant_id` of type text or uuid that its primary key begins with; or, if all \
             tenants read the same rows, the line `-- tenantry: lookup`",
        ),
        (
            after("ALTER TABLE countries ADD a text, ADD b text, ADD FOREIGN KEY (a, b) REFERENCES t;"),
            "2_b.sql:4: table `countries` is marked `tenantry: lookup`, but refers to `t`",
        ),
        (
            after("CREATE TABLE x (tenant_id text, PRIMARY KEY (tenant_id, id)) INHERITS (countries);"),
            "2_b.sql:4: table `x` inherits from `countries`",
        ),
        (
            after("GRANT UPDATE ON countries TO PUBLIC;"),
            "2_b.sql:4: table `countries` is marked `tenantry: lookup`, so tenants only read it",
        ),
        (
            after("GRANT UPDATE (id) ON countries TO PUBLIC;"),
            "2_b.sql:4: table `countries` is marked `tenantry: lookup`, so tenants only read it",
        ),
        (
            after("CREATE POLICY tenantry_mine ON countries FOR INSERT WITH CHECK (true);"),
            "2_b.sql:4: table `countries`: the policy `tenantry_mine` admits more",
        ),
    ] {
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", &sql)]);
        let config = |config: &mut tenantry_databases::postgres::Config| {
            config.migrations = Some(folder.path().to_owned());
            config.seeds = Some(folder.path().to_owned());
        };
        let message = match fault.contains("stands before") {
            // Known without a server.
            true => {
                let mut bad = tenantry_databases::postgres::Config::new("postgres://a@localhost/b");
                config(&mut bad);
                tenantry_databases::postgres::Postgres::new(bad).err().unwrap().message
            }
            false => {
                let Some(fixture) = Fixture::with(Model::Pool, config).await else { return };
                let failure = fixture.provider.probe().await.unwrap_err();
                is(&failure, Fatal, "bad_migration");
                failure.message
            }
        };
        assert!(message.contains(fault), "{fault} in {message}");
    }
    // Seeds are a tenant's.
    let folder = self::folder();
    std::fs::create_dir_all(folder.path().join("start")).unwrap();
    let seed = "[{table: countries, rows: [{id: x, name: x}]}]";
    std::fs::write(folder.path().join("start/en.yaml"), seed).unwrap();
    let Some(fixture) = folder.fixture(Model::Pool).await else { return };
    let mut spec = bare();
    spec.settings = json!({ "seed": "start" });
    let failure = fixture.provider.ensure(&fixture.world.context(), &spec).await.unwrap_err();
    assert_eq!(failure.code, "bad_seed", "{failure}");
}

/// In a schema or database of its own a tenant owns these rows; archives load into every isolation model.
#[tokio::test]
async fn a_mark_is_a_plain_table_in_a_schema_or_database() {
    let folder = folder();
    let Some(pool) = folder.fixture(Model::Pool).await else { return };
    let one = bare();
    ensured(&pool, &one).await;
    let places = pool.provider.data().unwrap().scoped(one.tenant.id);
    places.insert("places", object(json!({ "id": "a", "country": "at" }))).await.unwrap();
    let (archive, content) = export(&pool, &one).await;
    for model in MODELS.into_iter().filter(|model| *model != Model::Pool) {
        let fixture = folder.fixture(model).await.unwrap();
        let spec = bare();
        let made = ensured(&fixture, &spec).await;
        let (transfer, context) = (fixture.provider.transfer().unwrap(), fixture.world.context());
        transfer.load(&context, &spec, &mut archive.source()).await.unwrap();
        let rows = fixture.provider.data().unwrap().scoped(spec.tenant.id);
        assert_eq!(
            rows.list("countries", 9, None).await.unwrap().rows.len(),
            2,
            "{model:?}: rows of files stay"
        );
        let (back, same) = export(&fixture, &spec).await;
        assert_eq!(same.digest, content.digest, "{model:?}");
        let into_pool = pool.provider.transfer().unwrap();
        into_pool.load(&pool.world.context(), &one, &mut back.source()).await.unwrap();
        assert_eq!(export(&pool, &one).await.1, content, "{model:?}");

        let mut session = log_in(&fixture, &spec, &made.outputs).await.unwrap();
        sqlx::raw_sql("INSERT INTO countries (id, name) VALUES ('own', 'Own')")
            .execute(&mut session)
            .await
            .unwrap();
        let (own, _) = export(&fixture, &spec).await;
        assert!(own.text().contains("Own"), "{model:?}: the archive has the tenant's rows");
        rows.delete("countries", "own").await.unwrap();
        transfer.load(&context, &spec, &mut own.source()).await.unwrap();
        assert!(rows.get("countries", "own").await.unwrap().is_some(), "{model:?}");
        let refused = into_pool.load(&pool.world.context(), &one, &mut own.source()).await.unwrap_err();
        assert_eq!(refused.code, "bad_archive", "{refused}");
        assert!(
            refused.message.contains("`countries` is marked `tenantry: lookup` and lacks rows"),
            "{refused}"
        );
    }
}

const SQLITE: &str = "CREATE TABLE t (tenant_id TEXT NOT NULL, id TEXT NOT NULL, n INTEGER, PRIMARY KEY (tenant_id, id));
-- tenantry: lookup
CREATE TABLE lands (id TEXT PRIMARY KEY, name TEXT UNIQUE);
INSERT INTO lands VALUES ('at', 'Austria');
ALTER TABLE lands RENAME TO countries;
ALTER TABLE countries ADD COLUMN more TEXT;
CREATE TABLE places (tenant_id TEXT NOT NULL, id TEXT, country TEXT REFERENCES countries (id), PRIMARY KEY (tenant_id, id));\n";

async fn sqlite(more: &str) -> Result<(tempfile::TempDir, DatabaseSqlitePool), String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("app")).unwrap();
    std::fs::write(dir.path().join("app/1_a.sql"), format!("{SQLITE}{more}")).unwrap();
    std::fs::write(dir.path().join("canary.yaml"), "[{table: t, rows: [{id: canary, n: 1}]}]").unwrap();
    let mut config = Config::new(dir.path().join("pool.db"));
    config.migrations = Some(dir.path().to_owned());
    config.seeds = Some(dir.path().to_owned());
    let pool = DatabaseSqlitePool::new(config).await.map_err(|failure| failure.message)?;
    Ok((dir, pool))
}

#[tokio::test]
async fn a_sqlite_pool_has_lookup_tables_too() {
    let (_dir, pool) = sqlite("").await.unwrap();
    let (world, spec) = (World::default(), bare());
    pool.ensure(&world.context(), &spec).await.unwrap();
    let rows = pool.data().unwrap().scoped(spec.tenant.id);
    let austria = json!({ "id": "at", "name": "Austria", "more": null });
    assert_eq!(rows.list("countries", 9, None).await.unwrap().rows, std::slice::from_ref(&austria));
    assert_eq!(rows.get("countries", "at").await.unwrap(), Some(austria));
    let added = rows.insert("countries", object(json!({ "id": "x" }))).await.unwrap_err();
    let deleted = rows.delete("countries", "at").await.unwrap_err();
    assert_eq!([&*added.code, &*deleted.code], ["not_allowed"; 2], "{added} {deleted}");
    rows.insert("places", object(json!({ "id": "a", "country": "at" }))).await.unwrap();
    let broken = rows.insert("places", object(json!({ "id": "b", "country": "x" }))).await.unwrap_err();
    assert_eq!(broken.code, "constraint");
    let (mut export, transfer) = (Export::default(), pool.transfer().unwrap());
    let content = transfer.export(&world.context(), &spec, &mut export).await.unwrap();
    assert_eq!(content.counts.keys().collect::<Vec<_>>(), ["places", "t"]);
    transfer.load(&world.context(), &spec, &mut export.source()).await.unwrap();
    let removed = pool.remove(&world.context(), &spec).await.unwrap().receipt;
    assert_eq!(removed["rows"]["places"], Value::from(1));
    assert_eq!(removed["rows"].get("countries"), None);
    let seen = pool.observe(&world.context(), &spec).await.unwrap();
    assert!(matches!(seen, tenantry_provider::Observed::Absent), "{seen:?}");
    assert_eq!(rows.list("countries", 9, None).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn marks_of_sqlite_that_do_not_fit_are_rejected() {
    for (more, fault) in [
        ("CREATE TABLE plain (id TEXT PRIMARY KEY);", "table `plain` cannot be shared by tenants"),
        (
            "-- tenantry: lookup\nCREATE TABLE x (tenant_id TEXT);",
            "table `x` is marked `tenantry: lookup`, but has a column `tenant_id`",
        ),
        (
            "-- tenantry: lookup\nCREATE TABLE x AS SELECT 1 AS a;",
            "1_a.sql:8: a marked table needs its columns",
        ),
        (
            "-- tenantry: lookup\nCREATE VIEW x AS SELECT 1 AS a;",
            "1_a.sql:8: the mark `tenantry: lookup` stands before no CREATE TABLE",
        ),
        (
            "-- tenantry: lookup\nCREATE TABLE x (a TEXT, b TEXT, FOREIGN KEY (a, b) REFERENCES t (tenant_id, id));",
            "table `x` is marked `tenantry: lookup`, but refers to `t`",
        ),
        (
            "CREATE TRIGGER spy AFTER INSERT ON t BEGIN UPDATE OR IGNORE \"Countries\" SET name = NEW.id; END;",
            "the trigger `spy` writes to countries",
        ),
        (
            "CREATE TRIGGER spy AFTER UPDATE ON t BEGIN DELETE FROM [countries]; END;",
            "the trigger `spy` writes to countries",
        ),
        (
            "CREATE TRIGGER spy AFTER DELETE ON t BEGIN INSERT INTO 'countries' (id) VALUES (OLD.id); END;",
            "the trigger `spy` writes to countries",
        ),
        (
            "CREATE TRIGGER spy AFTER INSERT ON t BEGIN INSERT INTO countries (id) VALUES (NEW.id); END;",
            "the trigger `spy` writes to countries",
        ),
    ] {
        let message = sqlite(more).await.err().unwrap_or_else(|| panic!("accepted: {more}"));
        assert!(message.contains(fault), "{fault} in {message}");
    }
    sqlite("CREATE TRIGGER reads AFTER INSERT ON t BEGIN INSERT INTO places SELECT NEW.tenant_id, NEW.id, id FROM countries; END;").await.unwrap();
}
