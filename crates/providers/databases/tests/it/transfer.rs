//! Export and load of the database providers, on real files and a real server: awkward values, and rows that load into
//! another isolation.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use sqlx::postgres::{PgAdvisoryLock, PgConnectOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _};
use tempfile::TempDir;
use tenantry_databases::sqlite_file::{Config as FileConfig, DatabaseSqliteFile};
use tenantry_databases::sqlite_pool::{Config as PoolConfig, DatabaseSqlitePool};
use tenantry_provider::{Provider, Spec};

use crate::contract::transfer::{ContentEnvironment, must_keep_content};
use crate::postgres::{Fixture, Model};
use crate::world::{World, object};

const TEXTS: [&str; 12] = [
    "",
    " ",
    "NULL",
    "\\N",
    "\\.",
    "a,b;c\td",
    "\"",
    "it's \"so\"",
    "line\nfeed\r\nand more",
    "Zoë 🎉 漢字",
    "007",
    "{\"a\": null}",
];

/// Adds rows to the product's tables and to `things`.
async fn fill_tables(environment: &dyn ContentEnvironment, spec: &Spec, word: &str, things: Vec<Value>) {
    let rows = environment.provider().data().unwrap().scoped(spec.tenant.id);
    let insert = |table: &'static str, row: Value| {
        let (rows, row): (_, Map<String, Value>) = (rows.clone(), object(row));
        async move { rows.insert(table, row).await.unwrap() }
    };
    insert("projects", json!({ "id": "p", "name": word })).await;
    for (number, text) in TEXTS.iter().enumerate() {
        insert("tasks", json!({ "id": format!("t{number}"), "project_id": "p", "title": text })).await;
    }
    for long in ["x", "\"", "🎉\n"] {
        let (title, id) = (long.repeat(1_000_000 / long.len()), format!("long {long:?}"));
        insert("tasks", json!({ "id": id, "project_id": "p", "title": title })).await;
    }
    for thing in things {
        insert("things", thing).await;
    }
}

/// The shipped migrations and one more.
fn migrations(dir: &Path, set: &str, more: &str) -> PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../templates/migrations").join(set);
    let folder = dir.join("migrations");
    std::fs::create_dir_all(folder.join(set)).unwrap();
    std::fs::copy(shipped.join("0001_init.sql"), folder.join(set).join("0001_init.sql")).unwrap();
    std::fs::write(folder.join(set).join("0002_things.sql"), more).unwrap();
    folder
}

const SQLITE_THINGS: &str = "
CREATE TABLE things (
    tenant_id TEXT NOT NULL, id TEXT NOT NULL, parent TEXT, raw BLOB, amount REAL, number INTEGER, whatever,
    \"Odd \"\" name\" TEXT, doubled INTEGER GENERATED ALWAYS AS (number * 2) STORED,
    PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, parent) REFERENCES things (tenant_id, id)
);
CREATE TABLE owners (tenant_id TEXT NOT NULL PRIMARY KEY) STRICT;";

async fn fill_sqlite(environment: &dyn ContentEnvironment, spec: &Spec, file: PathBuf, word: &str) {
    fill_tables(environment, spec, word, Vec::new()).await;
    let mut connection =
        sqlx::sqlite::SqliteConnectOptions::new().filename(file).foreign_keys(false).connect().await.unwrap();
    let tenant = spec.tenant.id;
    // A row that refers to a later one, and a value of every type in an untyped column.
    let sql = format!(
        "INSERT INTO things (tenant_id, id, parent, raw, amount, number, whatever, \"Odd \"\" name\") VALUES
         ('{tenant}', 'a', 'b', x'00ff22', 0.1, 9007199254740993, '1', 'x'), ('{tenant}', 'b', NULL, x'', 1e300, -1, 1, ''),
         ('{tenant}', 'c', 'a', NULL, 1.0, NULL, 1.0, NULL), ('{tenant}', 'd', 'd', x'5c78', -0.0, 0, x'31', '\\x00'),
         ('{tenant}', 'e', NULL, zeroblob(100000), 5e-324, 1, '', 'inf'), ('{tenant}', 'f', NULL, NULL, 9e999, 2, NULL, '')"
    );
    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

struct SqlitePool {
    dir: TempDir,
    provider: DatabaseSqlitePool,
    world: World,
}

#[async_trait]
impl ContentEnvironment for SqlitePool {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({ "seed": "defaults" })
    }
    async fn fill(&self, spec: &Spec, word: &str) {
        fill_sqlite(self, spec, self.dir.path().join("pool.db"), word).await;
    }
}

#[tokio::test]
async fn sqlite_pool() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = PoolConfig::new(dir.path().join("pool.db"));
    config.migrations = Some(migrations(dir.path(), "app", SQLITE_THINGS));
    let provider = DatabaseSqlitePool::new(config).await.unwrap();
    must_keep_content(&SqlitePool { dir, provider, world: World::default() }).await;
}

struct SqliteFile {
    dir: TempDir,
    provider: DatabaseSqliteFile,
    world: World,
}

#[async_trait]
impl ContentEnvironment for SqliteFile {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({})
    }
    async fn fill(&self, spec: &Spec, word: &str) {
        let rows = self.provider.data().unwrap().scoped(spec.tenant.id);
        rows.insert("workspaces", object(json!({ "id": "default", "name": "w" }))).await.unwrap();
        fill_sqlite(self, spec, self.dir.path().join("root").join(&spec.name).join("tenant.db"), word).await;
    }
}

#[tokio::test]
async fn sqlite_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = FileConfig::new(dir.path().join("root"));
    config.migrations = Some(migrations(dir.path(), "app", SQLITE_THINGS));
    let provider = DatabaseSqliteFile::new(config).await.unwrap();
    must_keep_content(&SqliteFile { dir, provider, world: World::default() }).await;
}

const POSTGRES_THINGS: &str = "
CREATE TABLE things (
    tenant_id text NOT NULL, id text NOT NULL, number bigint GENERATED ALWAYS AS IDENTITY, parent text, raw bytea,
    amount numeric, at timestamptz, day date, took interval, doc jsonb, plain json, tags text[], real float8, flag boolean,
    \"Odd \"\" name\" text, doubled bigint GENERATED ALWAYS AS (length(id) * 2) STORED,
    PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, parent) REFERENCES things (tenant_id, id)
);
CREATE TABLE owners (tenant_id text NOT NULL PRIMARY KEY);";

pub struct Postgres(pub Fixture);

#[async_trait]
impl ContentEnvironment for Postgres {
    fn provider(&self) -> &dyn Provider {
        &*self.0.provider
    }
    fn world(&self) -> &World {
        &self.0.world
    }
    fn settings(&self) -> Value {
        json!({ "seed": "defaults" })
    }
    async fn fill(&self, spec: &Spec, word: &str) {
        let things = vec![
            json!({ "id": "a", "parent": "a", "raw": "\\x00ff22", "amount": 0.1, "at": "2026-11-21T12:00:00.123456+02:00",
                "day": "0044-03-15 BC", "took": "1 mon 2 days 03:04:05.678", "doc": { "a": [null, "x"] },
                "plain": { "b": 1 }, "tags": ["", "a,b", "\"", null], "real": "NaN", "flag": false, "Odd \" name": "" }),
            json!({ "id": "b", "raw": "\\x", "amount": "123456789012345678901234567890.000000001", "at": "infinity",
                "tags": [], "real": 0.1, "flag": true, "doc": "text" }),
            json!({ "id": "c", "parent": "b", "amount": "NaN", "real": "-Infinity", "Odd \" name": "\\x00" }),
        ];
        fill_tables(self, spec, word, things).await;
    }
}

async fn postgres(model: Model) {
    if let Some(fixture) = Fixture::of(model).await {
        on_postgres(fixture).await;
    }
}

/// Exports and loads tenants' rows, with tables of the test's own.
pub async fn on_postgres(mut fixture: Fixture) {
    let dir = tempfile::tempdir().unwrap();
    let folder = migrations(dir.path(), "postgres/app", POSTGRES_THINGS);
    fixture.reconfigure(|config| config.migrations = Some(folder));
    let environment = Postgres(fixture);
    must_keep_content(&environment).await;

    // Generated numbers continue after the loaded ones.
    let (old, new) = (environment.tenant().await, environment.tenant().await);
    environment.fill(&old, "x").await;
    let (export, _) = environment.export(&old).await;
    environment.load(&new, &mut export.source()).await.unwrap();
    let rows = environment.0.provider.data().unwrap().scoped(new.tenant.id);
    let there = rows.list("things", 100, None).await.unwrap().rows;
    let added = rows.insert("things", object(json!({ "id": "z" }))).await.unwrap();
    assert!(there.iter().all(|row| row["number"].as_i64() < added["number"].as_i64()), "{added} {there:?}");
    assert_eq!(
        there,
        environment
            .0
            .provider
            .data()
            .unwrap()
            .scoped(old.tenant.id)
            .list("things", 100, None)
            .await
            .unwrap()
            .rows
    );
}

#[tokio::test]
async fn postgres_pool() {
    postgres(Model::Pool).await;
}

/// Only in the pool do tenants share sequences.
#[tokio::test]
async fn a_load_does_not_exhaust_shared_sequences() {
    let dir = tempfile::tempdir().unwrap();
    let numbered = "CREATE TABLE things (tenant_id text NOT NULL, id text NOT NULL,
        number bigint GENERATED BY DEFAULT AS IDENTITY, PRIMARY KEY (tenant_id, id));";
    let folder = migrations(dir.path(), "postgres/app", numbered);
    let fixture = Fixture::with(Model::Pool, |config| config.migrations = Some(folder)).await;
    let Some(fixture) = fixture else { return };
    let environment = Postgres(fixture);
    let (greedy, other) = (environment.tenant().await, environment.tenant().await);
    let add = async |spec: &Spec, row: Value| {
        environment.provider().data().unwrap().scoped(spec.tenant.id).insert("things", object(row)).await
    };
    add(&greedy, json!({ "id": "last", "number": i64::MAX })).await.unwrap();
    for spec in [&greedy, &other] {
        let (export, _) = environment.export(spec).await;
        environment.load(spec, &mut export.source()).await.unwrap();
        add(&other, json!({ "id": spec.name })).await.unwrap();
    }
}

#[tokio::test]
async fn postgres_schema() {
    postgres(Model::Schema).await;
}

#[tokio::test]
async fn postgres_database() {
    postgres(Model::Database).await;
}

/// Tenants change plans: rows of a pool load into a database, and back.
#[tokio::test]
async fn rows_load_into_another_isolation() {
    let (Some(pool), Some(database)) = (Fixture::of(Model::Pool).await, Fixture::of(Model::Database).await)
    else {
        return;
    };
    let (pool, database) = (Postgres(pool), Postgres(database));
    let (one, two) = (pool.tenant().await, database.tenant().await);
    fill_tables(&pool, &one, "word", Vec::new()).await;
    let (export, content) = pool.export(&one).await;
    database.load(&two, &mut export.source()).await.unwrap();
    assert_eq!(database.content(&two).await, content);
    assert_eq!(pool.provider().transfer().unwrap().form(), database.provider().transfer().unwrap().form());
}

/// The last statement of a dead process may still run: no rows may be committed after a removal that did not
/// see them.
#[tokio::test]
async fn a_load_commits_under_the_removals_lock() {
    let Some(fixture) = Fixture::of(Model::Pool).await else { return };
    let environment = Postgres(fixture);
    let (one, two) = (environment.tenant().await, environment.tenant().await);
    environment
        .provider()
        .data()
        .unwrap()
        .scoped(two.tenant.id)
        .insert("projects", object(json!({ "id": "more", "name": "more" })))
        .await
        .unwrap();
    let (export, more) = environment.export(&two).await;
    let before = environment.content(&one).await;
    let options: PgConnectOptions = environment.0.url().parse().unwrap();
    let mut removal = options.connect().await.unwrap();
    let lock =
        PgAdvisoryLock::new(format!("tenantry pool {}", one.name)).acquire(&mut removal).await.unwrap();
    let waits = async {
        let waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        while environment.0.sql(waiting).await.is_empty() {}
    };
    let mut source = export.source();
    tokio::select! {
        ended = environment.load(&one, &mut source) => panic!("it did not wait: {ended:?}"),
        () = waits => {}
    }
    drop(lock);
    assert_eq!(environment.content(&one).await, before, "the interrupted load changed nothing");
    removal.close().await.unwrap();
    environment.load(&one, &mut export.source()).await.unwrap();
    assert_eq!(environment.content(&one).await, more);
}
