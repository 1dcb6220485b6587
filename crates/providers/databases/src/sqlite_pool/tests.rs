//! Tests of the pool: schema rules, group commit, separation of tenants, full disk. The provider contract is
//! tested in `tests/it`.

mod transfer;

use std::path::Path;

use serde_json::Map;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tenantry_model::FailureClass;

use super::*;
use crate::content::{Ensure, Insert};

struct Folder {
    dir: TempDir,
}

impl Folder {
    fn new(migrations: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("app")).unwrap();
        std::fs::create_dir_all(dir.path().join("seeds/s")).unwrap();
        let this = Self { dir };
        for (name, text) in migrations {
            this.migration(name, text);
        }
        this.seed("canary.yaml", "[{table: t, rows: [{id: canary}]}]");
        this
    }

    fn migration(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join("app").join(name), text).unwrap();
    }

    fn seed(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join("seeds").join(name), text).unwrap();
    }

    fn config(&self) -> Config {
        Config {
            migrations: Some(self.dir.path().to_owned()),
            seeds: Some(self.dir.path().join("seeds")),
            ..Config::new(self.dir.path().join("pool.db"))
        }
    }

    async fn open(&self) -> Result<DatabaseSqlitePool, Failure> {
        let pool = DatabaseSqlitePool::new(self.config()).await?;
        pool.probe().await?;
        Ok(pool)
    }
}

const TABLE: &str = "CREATE TABLE t (tenant_id TEXT NOT NULL, id TEXT NOT NULL, n INTEGER, sample INTEGER, PRIMARY KEY (tenant_id, id)) STRICT;";

async fn shipped(dir: &Path) -> DatabaseSqlitePool {
    DatabaseSqlitePool::new(Config::new(dir.join("pool.db"))).await.unwrap()
}

fn work(tenant: TenantId, claim: &str, rows: Vec<(Arc<Insert>, String)>) -> Work {
    Work::Ensure(Box::new(Ensure {
        tenant: tenant.to_string(),
        name: format!("tenant_{}", tenant.suffix()),
        tag: claim.to_owned(),
        resource: "res".to_owned(),
        seed: None,
        at: "now".to_owned(),
        rows,
    }))
}

fn row(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

async fn scalar(file: &Path, sql: &'static str) -> i64 {
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let found = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    found
}

#[tokio::test]
async fn schemas_that_mix_tenants_are_rejected() {
    for (sql, word) in [
        ("CREATE TABLE x (id TEXT PRIMARY KEY);", "`x` cannot be shared"),
        ("CREATE TABLE x (tenant_id TEXT NOT NULL, id TEXT PRIMARY KEY);", "`x` cannot be shared"),
        ("CREATE TABLE x (tenant_id TEXT, id TEXT, PRIMARY KEY (tenant_id, id));", "`x` cannot be shared"),
        ("CREATE TABLE _x (tenant_id TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (tenant_id, id));", "underscore"),
        ("CREATE UNIQUE INDEX u ON t (n);", "unique index"),
        ("CREATE VIRTUAL TABLE v USING fts5(a);", "virtual"),
        (
            "CREATE TABLE x (tenant_id TEXT NOT NULL, id TEXT NOT NULL, o TEXT, p TEXT, PRIMARY KEY (tenant_id, id),
               FOREIGN KEY (o, p) REFERENCES t (tenant_id, id));",
            "foreign key",
        ),
        (
            "CREATE TABLE x (tenant_id TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, id) REFERENCES y);
             CREATE TABLE y (tenant_id TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, id) REFERENCES x);",
            "cycle",
        ),
    ] {
        let files = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", sql)]);
        let failure = files.open().await.err().unwrap_or_else(|| panic!("accepted: {sql}"));
        assert_eq!((failure.code.as_str(), failure.class), ("bad_migration", FailureClass::Fatal), "{sql}");
        assert!(failure.message.contains(word) && failure.message.contains("2_b.sql"), "{failure} for {sql}");
        assert!(!files.config().file.exists(), "found in memory, before the file is touched");
    }
}

#[tokio::test]
async fn migrations_are_applied_once_and_must_not_change() {
    let files = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", "INSERT INTO t VALUES ('x', 'y', 1, 0);")]);
    drop(files.open().await.unwrap());
    drop(files.open().await.unwrap());
    assert_eq!(scalar(&files.config().file, "SELECT count(*) FROM t WHERE tenant_id = 'x'").await, 1);

    files.migration("2_b.sql", "INSERT INTO t VALUES ('x', 'z', 1, 0);");
    let changed = files.open().await.err().unwrap();
    assert_eq!(changed.code, "migration_changed");
    assert!(changed.message.contains("2_b.sql was changed"), "{changed}");

    std::fs::remove_file(files.dir.path().join("app/2_b.sql")).unwrap();
    assert!(files.open().await.err().unwrap().message.contains("newer release"));
    files.migration("2_b.sql", "INSERT INTO t VALUES ('x', 'y', 1, 0);");
    files.migration("1.sql", "SELECT 1;");
    assert!(files.open().await.err().unwrap().message.contains("has the number of"));
    std::fs::remove_file(files.dir.path().join("app/1.sql")).unwrap();
    files.migration("0_early.sql", "SELECT 1;");
    assert!(files.open().await.err().unwrap().message.contains("higher number"));
}

#[tokio::test]
async fn a_migration_that_fails_on_the_data_leaves_nothing() {
    let files = Folder::new(&[("1_a.sql", TABLE)]);
    drop(files.open().await.unwrap());
    // Runs on an empty database and fails on this one: its first statements must be rolled back too.
    files.migration(
        "2_b.sql",
        "CREATE TABLE n (tenant_id TEXT NOT NULL, id TEXT NOT NULL, CHECK (id <> 'canary'), PRIMARY KEY (tenant_id, id));
         INSERT INTO n SELECT tenant_id, id FROM t;",
    );
    let failure = files.open().await.err().unwrap();
    assert_eq!(failure.code, "bad_migration");
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'n'";
    assert_eq!(scalar(&files.config().file, tables).await, 0);
    assert_eq!(scalar(&files.config().file, "SELECT count(*) FROM _migrations").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_processes_apply_each_file_once() {
    let more: Vec<(String, String)> = (2..20)
        .map(|n| {
            (format!("{n}_b.sql"), format!("INSERT INTO t VALUES ('x', '{n}', (SELECT count(*) FROM t), 0);"))
        })
        .collect();
    let files = Folder::new(&[("1_a.sql", TABLE)]);
    for (name, text) in &more {
        files.migration(name, text);
    }
    let opened = futures::future::join_all((0..4).map(|_| files.open())).await;
    for one in opened {
        one.unwrap();
    }
    assert_eq!(scalar(&files.config().file, "SELECT count(*) FROM t WHERE tenant_id = 'x'").await, 18);
}

#[tokio::test]
async fn a_failed_job_is_rolled_back_alone() {
    let files = Folder::new(&[("1_a.sql", TABLE)]);
    let pool = files.open().await.unwrap();
    let writer = &pool.pool.open.get().unwrap().writer;
    let insert = Arc::new(Insert { table: "t".into(), columns: vec!["id".into(), "n".into()] });
    let tenants: Vec<TenantId> = (0..20).map(|_| TenantId::new()).collect();
    let jobs = tenants.iter().enumerate().map(|(i, tenant)| {
        let value = if i == 7 { "\"no number\"" } else { "1" };
        writer.run(work(*tenant, "c", vec![(insert.clone(), format!("[\"{tenant}\",\"a\",{value}]"))]))
    });
    let answers = futures::future::join_all(jobs).await;
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_err(), i == 7, "{i}: {answer:?}");
    }
    assert_eq!(answers[7].as_ref().unwrap_err().class, FailureClass::Invalid);
    let file = files.config().file;
    assert_eq!(scalar(&file, "SELECT count(*) FROM t WHERE n = 1").await, 19);
    assert_eq!(scalar(&file, "SELECT count(*) FROM _tenants WHERE claim = 'c'").await, 19);
}

#[tokio::test]
async fn a_batch_keeps_the_order_of_its_jobs() {
    let files = Folder::new(&[("1_a.sql", TABLE)]);
    let pool = files.open().await.unwrap();
    let writer = &pool.pool.open.get().unwrap().writer;
    let tenant = TenantId::new();
    let remove = || Work::Remove { tenant: tenant.to_string(), tag: "mine".to_owned() };
    let answers = futures::join!(
        writer.run(work(tenant, "mine", Vec::new())),
        writer.run(work(tenant, "other", Vec::new())),
        writer.run(remove()),
        writer.run(work(tenant, "other", Vec::new())),
        writer.run(remove()),
    );
    assert!(answers.0.is_ok() && answers.2.is_ok() && answers.3.is_ok() && answers.4.is_ok());
    assert_eq!(answers.1.unwrap_err().code, "name_taken");
    assert_eq!(scalar(&files.config().file, "SELECT count(*) FROM _tenants WHERE claim = 'other'").await, 1);
}

#[tokio::test]
async fn an_incomplete_tenant_is_completed() {
    let files = Folder::new(&[("1_a.sql", TABLE)]);
    let pool = files.open().await.unwrap();
    let writer = &pool.pool.open.get().unwrap().writer;
    let insert = Arc::new(Insert { table: "t".into(), columns: vec!["id".into()] });
    let tenant = TenantId::new();
    let rows = || vec![(insert.clone(), format!("[\"{tenant}\",\"a\"],[\"{tenant}\",\"b\"]"))];
    writer.run(work(tenant, "c", rows())).await.unwrap();
    let mut other =
        sqlx::sqlite::SqliteConnectOptions::new().filename(files.config().file).connect().await.unwrap();
    sqlx::raw_sql("UPDATE _tenants SET completed = NULL; DELETE FROM t WHERE id = 'a'")
        .execute(&mut other)
        .await
        .unwrap();
    writer.run(work(tenant, "c", rows())).await.unwrap();
    assert_eq!(scalar(&files.config().file, "SELECT count(*) FROM t WHERE id IN ('a', 'b')").await, 2);
    sqlx::raw_sql("DELETE FROM t WHERE id = 'a'").execute(&mut other).await.unwrap();
    writer.run(work(tenant, "c", rows())).await.unwrap();
    let left = scalar(&files.config().file, "SELECT count(*) FROM t WHERE id IN ('a', 'b')").await;
    assert_eq!(left, 1, "what the tenant deleted after completion stays deleted");
}

#[tokio::test]
async fn rows_are_scoped_to_the_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let pool = shipped(dir.path()).await;
    let (a, b) = (TenantId::new(), TenantId::new());
    let writer = &pool.pool.ready().await.unwrap().writer;
    for tenant in [a, b] {
        writer.run(work(tenant, "c", Vec::new())).await.unwrap();
    }
    let (own, other) = (pool.scoped(a), pool.scoped(b));
    let stored =
        own.insert("workspaces", row(json!({ "id": "w", "name": "A \"quoted\" one" }))).await.unwrap();
    assert_eq!(stored["name"], "A \"quoted\" one");
    assert_eq!(stored["locale"], "en", "defaults are applied");
    assert!(stored.get("tenant_id").is_none());
    assert_eq!(other.get("workspaces", "w").await.unwrap(), None);
    assert!(!other.delete("workspaces", "w").await.unwrap());
    other.insert("workspaces", row(json!({ "id": "w", "name": "B" }))).await.unwrap();
    assert_eq!(own.get("workspaces", "w").await.unwrap().unwrap(), stored);

    for n in 0..5 {
        own.insert(
            "notification_settings",
            row(json!({ "id": format!("n{n}"), "label": "x", "enabled": true })),
        )
        .await
        .unwrap();
    }
    let first = own.list("notification_settings", 3, None).await.unwrap();
    assert_eq!((first.rows.len(), first.next.as_deref()), (3, Some("n2")));
    let second = own.list("notification_settings", 3, first.next.as_deref()).await.unwrap();
    assert_eq!((second.rows.len(), second.next), (2, None));
    assert!(own.delete("notification_settings", "n0").await.unwrap());

    let id = own.insert("workspaces", row(json!({ "name": "without id" }))).await.unwrap()["id"].clone();
    assert!(own.get("workspaces", id.as_str().unwrap()).await.unwrap().is_some());

    let canary = pool.canary();
    assert_eq!(own.get(&canary.table, &canary.id).await.unwrap(), None);
    assert!(pool.scoped(canary.tenant).get(&canary.table, &canary.id).await.unwrap().is_some());
}

#[tokio::test]
async fn the_canary_row_is_updated_at_start() {
    let files = Folder::new(&[("1_a.sql", TABLE)]);
    drop(files.open().await.unwrap());
    files.seed("canary.yaml", "[{table: t, rows: [{id: another, n: 7}]}]");
    let pool = files.open().await.unwrap();
    let canary = pool.canary();
    assert_eq!(canary.id, "another");
    let rows = pool.scoped(canary.tenant).list("t", 10, None).await.unwrap().rows;
    assert_eq!(rows, [json!({ "id": "another", "n": 7, "sample": null })]);
    for (text, code) in [
        ("[{table: t, rows: [{n: 1}]}]", "bad_seed"),
        ("[{table: x, rows: [{id: a}]}]", "bad_seed"),
        ("[]", "bad_seed"),
    ] {
        files.seed("canary.yaml", text);
        assert_eq!(files.open().await.err().unwrap().code, code, "{text}");
    }
}

#[tokio::test]
async fn rejected_rows_name_the_field() {
    let dir = tempfile::tempdir().unwrap();
    let pool = shipped(dir.path()).await;
    let tenant = TenantId::new();
    pool.pool.ready().await.unwrap().writer.run(work(tenant, "c", Vec::new())).await.unwrap();
    let rows = pool.scoped(tenant);
    for (table, value, word) in [
        ("workspaces", json!({ "name": "x", "tenant_id": "ten_x" }), "tenant_id"),
        ("workspaces", json!({ "name": "x", "extra": 1 }), "`extra`"),
        ("workspaces", json!({ "name": "x", "id\" --": 1 }), "not a column"),
        ("workspaces", json!({}), "workspaces.name"),
        ("workspaces", json!({ "name": null }), "workspaces.name"),
        ("tasks", json!({ "project_id": "nowhere", "title": "x" }), "FOREIGN KEY"),
        ("notification_settings", json!({ "label": "x", "enabled": 7 }), "enabled"),
        ("notification_settings", json!({ "label": "x", "enabled": "yes" }), "notification_settings.enabled"),
        ("_tenants", json!({}), "no such table"),
        ("sqlite_schema", json!({}), "no such table"),
        ("workspaces; DROP TABLE tasks", json!({}), "no such table"),
    ] {
        let failure = rows.insert(table, row(value.clone())).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Invalid, "{table} {value}: {failure}");
        assert!(failure.message.contains(word), "{table} {value}: {failure}");
    }
    assert_eq!(rows.get("_tenants", "x").await.unwrap_err().code, "unknown_table");
    assert_eq!(rows.list("tasks", 0, None).await.unwrap_err().code, "bad_limit");
    assert_eq!(rows.list("tasks", 101, None).await.unwrap_err().code, "bad_limit");

    let gone = pool.scoped(TenantId::new());
    assert_eq!(
        gone.insert("workspaces", row(json!({ "name": "x" }))).await.unwrap_err().code,
        "no_such_tenant"
    );
}

#[tokio::test]
async fn samples_in_use_are_not_removed() {
    let files = Folder::new(&[
        ("1_a.sql", TABLE),
        (
            "2_b.sql",
            "CREATE TABLE c (tenant_id TEXT NOT NULL, id TEXT NOT NULL, t TEXT, PRIMARY KEY (tenant_id, id),
             FOREIGN KEY (tenant_id, t) REFERENCES t (tenant_id, id));",
        ),
    ]);
    let pool = files.open().await.unwrap();
    let tenant = TenantId::new();
    pool.pool.ready().await.unwrap().writer.run(work(tenant, "c", Vec::new())).await.unwrap();
    let rows = pool.scoped(tenant);
    for (id, sample) in [("real", 0), ("s1", 1), ("s2", 1)] {
        rows.insert("t", row(json!({ "id": id, "sample": sample }))).await.unwrap();
    }
    rows.insert("c", row(json!({ "id": "child", "t": "s2" }))).await.unwrap();
    assert_eq!(rows.remove_samples().await.unwrap_err().code, "sample_in_use");
    assert_eq!(rows.list("t", 10, None).await.unwrap().rows.len(), 3, "nothing is half removed");
    rows.delete("c", "child").await.unwrap();
    assert_eq!(rows.remove_samples().await.unwrap(), json!({ "t": 2 }));
    assert_eq!(rows.list("t", 10, None).await.unwrap().rows.len(), 1);
    assert!(pool.scoped(pool.canary().tenant).get("t", "canary").await.unwrap().is_some());
}

#[tokio::test]
async fn tenants_can_be_removed_from_a_full_pool() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: Some(160 * 1024), ..Config::new(dir.path().join("pool.db")) };
    let pool = DatabaseSqlitePool::new(config.clone()).await.unwrap();
    let tenant = TenantId::new();
    let writer = &pool.pool.ready().await.unwrap().writer;
    writer.run(work(tenant, "c", Vec::new())).await.unwrap();
    let rows = pool.scoped(tenant);
    let big = "x".repeat(8 * 1024);
    let mut failure = None;
    for _ in 0..40 {
        failure = rows.insert("workspaces", row(json!({ "name": big }))).await.err();
        if failure.is_some() {
            break;
        }
    }
    let failure = failure.expect("the limit is reached");
    assert_eq!((failure.code.as_str(), failure.class), ("disk_full", FailureClass::Retryable));

    let too_much = rows.insert("workspaces", row(json!({ "name": big })));
    let remove = writer.run(Work::Remove { tenant: tenant.to_string(), tag: "c".to_owned() });
    let (refused, removed) = futures::join!(too_much, remove);
    assert_eq!(refused.unwrap_err().code, "disk_full");
    assert!(removed.unwrap()["workspaces"].as_u64().unwrap() > 5);
    let check: i64 =
        scalar(&config.file, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'")
            .await;
    assert_eq!(check, 1);
}

#[tokio::test]
async fn opening_the_file_is_retried() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("folder");
    std::fs::write(&blocked, "not a folder").unwrap();
    let pool = DatabaseSqlitePool::new(Config::new(blocked.join("pool.db"))).await.unwrap();
    let failure = pool.probe().await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.class), ("cannot_open", FailureClass::Retryable));
    std::fs::remove_file(&blocked).unwrap();
    pool.probe().await.unwrap();

    std::fs::remove_file(blocked.join("pool.db")).unwrap();
    assert_eq!(pool.probe().await.unwrap_err().code, "file_replaced");
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pool.db"), "x".repeat(9000)).unwrap();
    let failure = shipped(dir.path()).await.probe().await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.class), ("corrupt", FailureClass::Fatal));
}

#[tokio::test]
async fn the_file_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    shipped(dir.path()).await.probe().await.unwrap();
    for name in ["pool.db", "pool.db-wal"] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn settings_are_checked_against_migrations_and_seeds() {
    let dir = tempfile::tempdir().unwrap();
    let pool = shipped(dir.path()).await;
    let paths = |settings: Value| pool.check(&settings).into_iter().map(|f| f.path).collect::<Vec<_>>();
    assert!(paths(json!({ "migrations": "app", "seed": "defaults" })).is_empty());
    assert!(paths(json!({})).is_empty());
    assert_eq!(paths(json!({ "migrations": "other", "seed": "nothing" })), ["migrations", "seed"]);
    assert_eq!(paths(json!({ "seed": "../x" })), ["seed"]);

    let files = Folder::new(&[("1_a.sql", TABLE)]);
    let pool = files.open().await.unwrap();
    for (text, word) in [
        ("[{table: x, rows: [{id: a}]}]", "no table `x`"),
        ("[{table: t, rows: [{id: a, y: 1}]}]", "`y`"),
        ("[{table: t, rows: [{id: a, tenant_id: 1}]}]", "`tenant_id`"),
        ("[{table: t, rows: [{id: '{{ unknown }}'}]}]", "row 1, id"),
    ] {
        files.seed("s/en.yaml", text);
        let faults = pool.check(&json!({ "seed": "s" }));
        assert!(faults.first().is_some_and(|fault| fault.message.contains(word)), "{text}: {faults:?}");
    }
}

#[tokio::test]
async fn removal_covers_tables_of_newer_migrations() {
    let folder = Folder::new(&[("1_a.sql", TABLE)]);
    let older = folder.open().await.unwrap();
    let newer = {
        folder.migration("2_notes.sql", &TABLE.replace("TABLE t", "TABLE notes"));
        folder.open().await.unwrap()
    };
    let (tenant, claim) = (TenantId::new(), "tenantry:its");
    let open = newer.pool.ready().await.unwrap();
    open.writer.run(work(tenant, claim, Vec::new())).await.unwrap();
    let note = Map::from_iter([("id".to_owned(), json!("x"))]);
    newer.scoped(tenant).insert("notes", note).await.unwrap();
    let old = older.pool.ready().await.unwrap();
    let remove = || Work::Remove { tenant: tenant.to_string(), tag: claim.to_owned() };
    assert_eq!(old.writer.run(remove()).await.unwrap(), json!({ "notes": 1, "t": 0 }));

    // Rows of a tenant that is not listed are reported and removed.
    let holds = async || old.read(move |reads| catalogue::holds(reads, &tenant.to_string())).await.unwrap();
    assert!(!holds().await);
    let connection = client::open(&folder.config().file, None).unwrap();
    let late = "INSERT INTO notes (tenant_id, id) VALUES (?1, 'late')";
    client::execute(&connection, late, [tenant.to_string()]).unwrap();
    assert!(holds().await);
    old.writer.run(remove()).await.unwrap();
    assert!(!holds().await);
}
