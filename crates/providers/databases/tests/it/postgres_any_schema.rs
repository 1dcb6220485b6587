//! A schema or database of a tenant's own takes whatever PostgreSQL can store: tables without `tenant_id`, keys or
//! columns, every type, cycles of foreign keys, inheritance, partitions, triggers, rules, sequences and large objects.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, Row};
use tempfile::TempDir;
use tenantry_databases::postgres::Config;
use tenantry_provider::{Provider, Spec};

use crate::contract::transfer::{ContentEnvironment, Export, must_keep_content};
use crate::postgres::{Fixture, Model};
use crate::world::{World, object};

const TABLES: &str = include_str!("postgres_any_schema/tables.sql");
const ROWS: &str = include_str!("postgres_any_schema/rows.sql");

/// A folder with migrations and seeds.
pub fn folder(tables: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("migrations/postgres/app/0001_init.sql", tables);
    write("seeds/canary.yaml", "[{table: notes, rows: [{id: canary, value: Canary}]}]");
    write("seeds/defaults/en.yaml", "[{table: notes, rows: [{id: first, value: Hello}]}]");
    dir
}

fn use_folder(config: &mut Config, dir: &Path) {
    config.migrations = Some(dir.join("migrations"));
    config.seeds = Some(dir.join("seeds"));
}

pub struct AnySchema {
    pub fixture: Fixture,
    _dir: TempDir,
}

impl AnySchema {
    /// Every model in which a tenant has its own tables, as a superuser and as an administrator with few privileges.
    pub async fn all(tables: &str) -> Vec<Self> {
        let mut all = Vec::new();
        for model in [Model::Schema, Model::Database] {
            for fixture in [Fixture::of(model).await, Fixture::with_plain_administrator(model).await] {
                let dir = folder(tables);
                let Some(mut fixture) = fixture else { continue };
                fixture.reconfigure(|config| use_folder(config, dir.path()));
                all.push(Self { fixture, _dir: dir });
            }
        }
        all
    }

    /// Connects to the tenant's tables as the administrator.
    pub async fn inside(&self, spec: &Spec) -> PgConnection {
        let options: PgConnectOptions = self.fixture.url().parse().unwrap();
        let options = match self.fixture.model {
            Model::Database => options.database(&spec.name),
            _ => options.options([("search_path", &*format!("\"{}\"", spec.name))]),
        };
        options.disable_statement_logging().connect().await.unwrap()
    }

    pub async fn run(&self, spec: &Spec, sql: &str) {
        let mut connection = self.inside(spec).await;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }

    /// The first column of a query, as texts.
    pub async fn texts(&self, spec: &Spec, sql: &str) -> Vec<String> {
        let mut connection = self.inside(spec).await;
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// All rows by table, and what else the tenant has, read without Tenantry.
    async fn dump(&self, spec: &Spec) -> BTreeMap<String, String> {
        let mut connection = self.inside(spec).await;
        let tables = "SELECT format('%s %I', CASE relkind WHEN 'r' THEN 'ONLY' ELSE '' END, relname) FROM pg_class
             WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'm', 'S') AND NOT relispartition
               AND relname NOT LIKE '\\_migrations%'
             UNION ALL SELECT '(SELECT tgname, tgenabled FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid AND relnamespace = current_schema()::regnamespace WHERE NOT tgisinternal)'
             UNION ALL SELECT '(SELECT rulename, ev_enabled FROM pg_rewrite JOIN pg_class c ON c.oid = ev_class AND relnamespace = current_schema()::regnamespace)'
             UNION ALL SELECT '(SELECT conname, convalidated, pg_get_constraintdef(k.oid) FROM pg_constraint k JOIN pg_class c ON c.oid = conrelid AND relnamespace = current_schema()::regnamespace)'
             UNION ALL SELECT '(SELECT conname, convalidated FROM pg_constraint WHERE contypid <> 0 AND connamespace = current_schema()::regnamespace)'
             UNION ALL SELECT '(SELECT o.oid, md5(lo_get(o.oid)), rolsuper OR rolcreatedb AS administrators,
                                        (SELECT string_agg(concat_ws('' '', grantee = 0, privilege_type, is_grantable), '','' ORDER BY grantee, privilege_type) FROM aclexplode(lomacl) WHERE grantee <> lomowner)
                                 FROM pg_largeobject_metadata o JOIN pg_roles r ON r.oid = lomowner)'
               WHERE current_schema() = 'public'";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await.unwrap();
        let mut dump = BTreeMap::new();
        for table in tables {
            let row = match table.contains("_seq") || table.contains("tickets") {
                true => "(entire.last_value, entire.is_called)",
                false => "entire",
            };
            let sql = format!(
                "SELECT coalesce(string_agg({row}::text, E'\\n' ORDER BY {row}::text), '') FROM {table} entire"
            );
            let rows: String =
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
            dump.insert(table, rows.replace(&spec.tenant.id.to_string(), "OWN"));
        }
        dump
    }
}

#[async_trait]
impl ContentEnvironment for AnySchema {
    fn provider(&self) -> &dyn Provider {
        &*self.fixture.provider
    }
    fn world(&self) -> &World {
        &self.fixture.world
    }
    fn settings(&self) -> Value {
        json!({ "seed": "defaults" })
    }
    async fn fill(&self, spec: &Spec, word: &str) {
        let rows = ROWS.replace("WORD", word).replace("TENANT", &spec.tenant.id.to_string());
        self.run(spec, &rows).await;
        if self.fixture.model == Model::Database {
            let objects = format!(
                "SET ROLE \"{}\"; SELECT lo_from_bytea(4711, decode(repeat('00ff', 400000), 'hex'));
                 RESET ROLE; SELECT lo_from_bytea(4712, '{word}'), lo_from_bytea(4713, '');
                 GRANT ALL ON LARGE OBJECT 4712 TO \"{}\" WITH GRANT OPTION; GRANT SELECT ON LARGE OBJECT 4713 TO PUBLIC",
                spec.name, spec.name
            );
            self.run(spec, &objects).await;
        }
    }
}

#[tokio::test]
async fn any_schema_survives_a_round_trip() {
    for environment in AnySchema::all(TABLES).await {
        must_keep_content(&environment).await;
        let (old, new) = (environment.tenant().await, environment.tenant().await);
        environment.fill(&old, "word").await;
        // What the load replaces, including a row that a rule protects and an object of the same number.
        environment.fill(&new, "other").await;
        let before = environment.dump(&old).await;
        let (export, content) = environment.export(&old).await;
        assert_eq!((content.counts["animals"], content.counts["cats"], content.counts["nothing"]), (1, 2, 2));
        environment.load(&new, &mut export.source()).await.unwrap();
        let after = environment.dump(&new).await;
        for (table, rows) in &before {
            assert_eq!(after.get(table), Some(rows), "{table} in {:?}", environment.fixture.model);
        }
        assert_eq!(environment.dump(&old).await, before, "an export changes nothing");
        assert_eq!(environment.content(&new).await, content);
    }
}

/// Everything that is destroyed is counted.
#[tokio::test]
async fn a_removal_counts_all_rows() {
    for environment in AnySchema::all(TABLES).await {
        let spec = environment.tenant().await;
        environment.fill(&spec, "word").await;
        let removed =
            environment.provider().remove(&environment.world().context(), &spec).await.unwrap().receipt;
        let rows = |table: &str| removed["rows"][table].as_u64();
        let counted = ["animals", "cats", "events", "members", "nothing", "_Odd \"name\", 🎉"].map(rows);
        assert_eq!(counted, [Some(1), Some(2), Some(3), Some(3), Some(2), Some(1)], "{removed:#}");
    }
}

#[tokio::test]
async fn the_data_api_needs_an_id_only() {
    for environment in AnySchema::all(TABLES).await {
        let spec = environment.tenant().await;
        let rows = environment.provider().data().unwrap().scoped(spec.tenant.id);
        assert_eq!(
            rows.list("notes", 10, None).await.unwrap().rows,
            [json!({ "id": "first", "value": "Hello" })]
        );
        let added = rows.insert("notes", object(json!({ "id": "a", "value": "x" }))).await.unwrap();
        assert_eq!(added, json!({ "id": "a", "value": "x" }));
        assert_eq!(rows.get("notes", "a").await.unwrap(), Some(added));
        assert!(rows.delete("notes", "a").await.unwrap());
        let made = rows.insert("animals", object(json!({}))).await.unwrap();
        assert_eq!(made["name"], Value::Null);
        let refused = rows.insert("nothing", object(json!({}))).await.unwrap_err();
        assert_eq!(refused.code, "unknown_table");
        assert!(refused.message.contains("notes") && !refused.message.contains("nothing,"), "{refused}");
        // A `tenant_id` that Tenantry fills, and one that means something else.
        rows.insert("members", object(json!({ "id": 7 }))).await.unwrap();
        assert_eq!(
            environment.texts(&spec, "SELECT tenant_id FROM members").await,
            [spec.tenant.id.to_string()]
        );
        let counted = rows.insert("meters", object(json!({ "id": 1, "tenant_id": 5 }))).await.unwrap();
        assert_eq!(counted, json!({ "id": 1, "tenant_id": 5 }));
    }
}

/// A seed that is written again, because the attempt before died, adds nothing: also without a key that ON CONFLICT takes.
#[tokio::test]
async fn seeds_are_written_once() {
    let written_again = async |keys: &str, change: Option<&str>| {
        let mut found = Vec::new();
        for mut environment in AnySchema::all(&format!("{TABLES}{keys}")).await {
            let spec = environment.tenant().await;
            if let Some(change) = change {
                environment.texts(&spec, change).await;
            }
            let main = format!(
                "UPDATE tenantry.homes SET completed = NULL WHERE name = '{}' RETURNING 1",
                spec.name
            );
            assert_eq!(environment.fixture.sql(&main).await.len(), 1);
            environment.fixture.reconfigure(|_| {});
            environment.fixture.ensure(&spec).await;
            found.push(environment.texts(&spec, "SELECT format('%s %s', id, value) FROM notes").await);
        }
        found
    };
    for keys in
        ["", "ALTER TABLE notes ADD PRIMARY KEY (id) DEFERRABLE, ADD EXCLUDE (value WITH =) DEFERRABLE;"]
    {
        for found in written_again(keys, None).await {
            assert_eq!(found, ["first Hello"], "{keys}");
        }
    }
    let keys = "ALTER TABLE notes ADD PRIMARY KEY (id), ADD UNIQUE (value) DEFERRABLE INITIALLY DEFERRED;";
    for found in written_again(keys, Some("UPDATE notes SET value = 'changed' RETURNING id")).await {
        assert_eq!(found, ["first changed"]);
    }
}

/// Archives of shared tables have neither sequences nor a `tenant_id`.
#[tokio::test]
async fn sequences_follow_rows_of_an_archive_without_positions() {
    for environment in AnySchema::all(TABLES).await {
        let spec = environment.tenant().await;
        let file = |table: &str, text: &str| (format!("{table}.000001.csv"), text.as_bytes().to_vec());
        let export = Export(vec![
            file("members", "\"id\"\n1\n2\n"),
            file("animals", "\"id\",\"name\"\n41,\"a\"\n"),
            file("lines", "\"no\"\n10\n-20\n"),
        ]);
        environment.load(&spec, &mut export.source()).await.unwrap();
        let own = "SELECT DISTINCT tenant_id FROM members";
        assert_eq!(environment.texts(&spec, own).await, [spec.tenant.id.to_string()]);
        let numbers = "WITH a AS (INSERT INTO animals DEFAULT VALUES RETURNING id), l AS (INSERT INTO lines DEFAULT VALUES RETURNING no)
             SELECT format('%s %s', id, no) FROM a, l";
        assert_eq!(environment.texts(&spec, numbers).await, ["42 -23"]);
    }
}

/// Foreign keys are checked after a load, however they are deferred.
#[tokio::test]
async fn rows_that_break_a_key_are_rejected() {
    for environment in AnySchema::all(TABLES).await {
        let spec = environment.tenant().await;
        environment.fill(&spec, "word").await;
        let before = (environment.dump(&spec).await, environment.content(&spec).await);
        for (table, text) in [("later", "\"id\",\"next\"\n1,2\n"), ("hens", "\"id\",\"egg\"\n1,1\n")] {
            let export = Export(vec![(format!("{table}.000001.csv"), text.as_bytes().to_vec())]);
            let refused = environment.load(&spec, &mut export.source()).await.unwrap_err();
            assert_eq!(refused.code, "bad_archive", "{refused}");
            assert_eq!((environment.dump(&spec).await, environment.content(&spec).await), before);
        }
    }
}

/// In the main database, large objects belong to no schema: a tenant's are those of its login.
#[tokio::test]
async fn large_objects_of_a_shared_database_are_those_of_the_tenants_login() {
    for environment in AnySchema::all("CREATE TABLE notes (id text, value text);").await {
        if environment.fixture.model != Model::Schema {
            continue;
        }
        let [spec, other] = [environment.tenant().await, environment.tenant().await];
        let object = format!(
            "SELECT lo_from_bytea(0, 'administrator''s'); SET ROLE \"{0}\"; SELECT lo_from_bytea(4711, 'first'), lo_from_bytea(4712, 'second');
             GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC; GRANT ALL ON LARGE OBJECT 4712 TO \"{1}\" WITH GRANT OPTION",
            spec.name, other.name
        );
        environment.run(&spec, &object).await;
        let objects = "SELECT concat_ws(' ', o.oid, encode(lo_get(o.oid), 'escape'), rolname, lomacl) FROM pg_largeobject_metadata o
             JOIN pg_roles r ON r.oid = lomowner ORDER BY o.oid";
        let before = environment.texts(&spec, objects).await;
        assert_eq!(before.len(), 3);
        let (export, content) = environment.export(&spec).await;
        assert_eq!(content.counts["large objects"], 2);
        assert_eq!(environment.content(&other).await.counts.get("large objects"), None);

        let changes = format!(
            "SELECT lo_unlink(4711), lo_put(4712, 0, 'xxxxxxxxxxx'); REVOKE ALL ON LARGE OBJECT 4712 FROM \"{}\" CASCADE;
             SET ROLE \"{}\"; SELECT lo_from_bytea(0, 'new')",
            other.name, spec.name
        );
        environment.run(&spec, &changes).await;
        environment.load(&spec, &mut export.source()).await.unwrap();
        assert_eq!(environment.texts(&spec, objects).await, before);
        assert_eq!(environment.content(&spec).await, content);

        let refused = environment.load(&other, &mut export.source()).await.unwrap_err();
        assert_eq!(refused.code, "bad_archive", "{refused}");
        assert!(refused.message.contains("4711, 4712 have the numbers"), "{refused}");
        assert_eq!(environment.texts(&spec, objects).await, before);

        let context = environment.world().context();
        environment.provider().remove(&context, &spec).await.unwrap();
        environment.load(&other, &mut export.source()).await.unwrap();
        let owned = "SELECT rolname::text FROM pg_roles JOIN pg_largeobject_metadata m ON lomowner = pg_roles.oid WHERE m.oid = 4711";
        assert_eq!(environment.texts(&other, owned).await.concat(), other.name);
    }
}

/// Shared tables keep their rules, and one attempt reports all faults.
#[tokio::test]
async fn shared_tables_report_all_faults_at_once() {
    let dir = folder(
        "CREATE TABLE notes (id text, value text);
         CREATE TABLE _hidden (tenant_id text, id text, PRIMARY KEY (tenant_id, id));
         CREATE TABLE a (tenant_id text, id text, b text, PRIMARY KEY (tenant_id, id), UNIQUE (b));
         CREATE TABLE c (tenant_id text, id text, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, id) REFERENCES a);
         ALTER TABLE a ADD FOREIGN KEY (tenant_id, b) REFERENCES c;",
    );
    let fixture = Fixture::with(Model::Pool, |config| use_folder(config, dir.path())).await;
    let Some(fixture) = fixture else { return };
    let failure = fixture.provider.probe().await.unwrap_err();
    for part in [
        "table `notes` cannot be shared",
        "table `notes` needs a primary key",
        "table `_hidden`: names",
        "table `a`: every unique index",
        "form a cycle",
    ] {
        assert!(failure.message.contains(part), "{part}: {failure}");
    }
}

/// A row of another tenant's, which only a schema or database of a tenant's own can have, does not load into shared
/// tables.
#[tokio::test]
async fn rows_of_another_tenant_do_not_load_into_shared_tables() {
    let Some(fixture) = Fixture::of(Model::Pool).await else { return };
    let spec = crate::postgres::make(&fixture).await.0;
    let text = "\"tenant_id\",\"id\",\"name\"\n\"another\",\"a\",\"x\"\n";
    let export = Export(vec![("workspaces.000001.csv".to_owned(), text.as_bytes().to_vec())]);
    let transfer = fixture.provider.transfer().unwrap();
    let refused = transfer.load(&fixture.world.context(), &spec, &mut export.source()).await.unwrap_err();
    assert_eq!(refused.code, "bad_archive");
    assert!(refused.message.contains("another `tenant_id`"), "{refused}");
}
