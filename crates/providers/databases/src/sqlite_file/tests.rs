//! Tests of tenants' files: owner tags, lookup, limits, full and damaged files. The provider contract is
//! tested in `tests/it`.

mod warm_pool;

use std::path::Path;

use serde_json::Map;
use sqlx::{ConnectOptions, Connection};
use tenantry_model::FailureClass;
use tenantry_model::id::{OperationId, ResourceId};

use super::*;
use crate::content::Settings;
use crate::sqlite::RecordedTenant;
use tenantry_provider::verbs::{Person, Tenant};

fn spec(settings: Value) -> Spec {
    let (tenant, resource) = (TenantId::new(), ResourceId::new());
    Spec {
        resource,
        operation: OperationId::new(),
        generation: 1,
        tenant: Tenant {
            id: tenant,
            slug: "acme".to_owned(),
            name: "Ačme & Söhne 漢字".to_owned(),
            plan: "growth".to_owned(),
            region: "eu".to_owned(),
            locale: "de".to_owned(),
            admin: Person::default(),
        },
        name: format!("tenant_{}", tenant.suffix()),
        claim: format!("tenantry:{tenant}:{resource}"),
        settings,
        inputs: Default::default(),
        note: None,
    }
}

async fn files(dir: &Path) -> DatabaseSqliteFile {
    DatabaseSqliteFile::new(Config::new(dir.join("tenants"))).await.unwrap()
}

/// Creates the tenant without a context.
async fn make(files: &DatabaseSqliteFile, spec: &Spec) -> Result<(), Failure> {
    let settings: Settings = settings::of(spec)?;
    let work = Ensure {
        tenant: spec.tenant.id.to_string(),
        name: spec.name.clone(),
        tag: spec.claim.clone(),
        resource: spec.resource.to_string(),
        seed: settings.seed,
        at: "now".to_owned(),
        rows: Vec::new(),
    };
    files.files.ensure(&files.folder_of(spec)?, spec, work).await
}

async fn gone(files: &DatabaseSqliteFile, spec: &Spec) -> Result<Value, Failure> {
    files.files.remove(&files.folder_of(spec)?, spec).await
}

fn path(dir: &Path, spec: &Spec) -> PathBuf {
    dir.join("tenants").join(&spec.name).join("tenant.db")
}

fn row(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

async fn sql(file: &Path, sql: &'static str) {
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn rows_are_scoped_to_the_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path()).await;
    let (a, b) = (spec(json!({})), spec(json!({})));
    make(&files, &a).await.unwrap();
    make(&files, &b).await.unwrap();
    let (own, other) = (files.scoped(a.tenant.id), files.scoped(b.tenant.id));
    let stored =
        own.insert("workspaces", row(json!({ "id": "w", "name": "Ä \"quoted\" 漢" }))).await.unwrap();
    assert_eq!((&stored["name"], &stored["locale"]), (&json!("Ä \"quoted\" 漢"), &json!("en")));
    assert!(stored.get("tenant_id").is_none());
    assert_eq!(other.get("workspaces", "w").await.unwrap(), None);
    assert!(!other.delete("workspaces", "w").await.unwrap());
    for n in 0..5 {
        let new = json!({ "id": format!("n{n}"), "label": "x", "enabled": true });
        own.insert("notification_settings", row(new)).await.unwrap();
    }
    let first = own.list("notification_settings", 3, None).await.unwrap();
    assert_eq!((first.rows.len(), first.next.as_deref()), (3, Some("n2")));
    let second = own.list("notification_settings", 3, first.next.as_deref()).await.unwrap();
    assert_eq!((second.rows.len(), second.next), (2, None));
    for (table, value, word) in [
        ("workspaces", json!({ "name": "x", "tenant_id": "ten_x" }), "tenant_id"),
        ("workspaces", json!({ "name": "x", "extra": 1 }), "`extra`"),
        ("workspaces", json!({}), "workspaces.name"),
        ("tasks", json!({ "project_id": "nowhere", "title": "x" }), "FOREIGN KEY"),
        ("_tenants", json!({}), "no such table"),
    ] {
        let failure = own.insert(table, row(value.clone())).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Invalid, "{table} {value}: {failure}");
        assert!(failure.message.contains(word), "{table} {value}: {failure}");
    }
    let missing = files.scoped(TenantId::new());
    assert_eq!(missing.get("workspaces", "w").await.unwrap_err().code, "no_such_tenant");
    let canary = files.canary();
    assert_eq!(own.get(&canary.table, &canary.id).await.unwrap(), None);
    assert!(files.scoped(canary.tenant).get(&canary.table, &canary.id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_restart_finds_all_tenants_and_limits_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { open_files: 3, ..Config::new(dir.path().join("tenants")) };
    let files = DatabaseSqliteFile::new(config.clone()).await.unwrap();
    let specs: Vec<Spec> = (0..8).map(|_| spec(json!({}))).collect();
    for spec in &specs {
        make(&files, spec).await.unwrap();
        let name = json!({ "id": "w", "name": spec.name });
        files.scoped(spec.tenant.id).insert("workspaces", row(name)).await.unwrap();
    }
    drop(files);
    let files = DatabaseSqliteFile::new(config).await.unwrap();
    for spec in specs.iter().chain(&specs) {
        let row = files.scoped(spec.tenant.id).get("workspaces", "w").await.unwrap().unwrap();
        assert_eq!(row["name"], spec.name);
    }
    assert!(files.files.open.kept() <= 3);
}

#[tokio::test]
async fn a_recreated_file_is_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path()).await;
    let spec = spec(json!({}));
    make(&files, &spec).await.unwrap();
    let rows = files.scoped(spec.tenant.id);
    rows.insert("workspaces", row(json!({ "id": "w", "name": "x" }))).await.unwrap();
    let receipt = gone(&files, &spec).await.unwrap();
    assert_eq!(receipt["rows"]["workspaces"], 1);
    assert!(
        receipt["bytes"].as_u64().unwrap() > 4096 && receipt["files"].as_u64().unwrap() >= 1,
        "{receipt}"
    );
    assert_eq!(rows.get("workspaces", "w").await.unwrap_err().code, "no_such_tenant");
    let late = rows.insert("workspaces", row(json!({ "name": "late" }))).await.unwrap_err();
    assert_eq!(late.code, "no_such_tenant");
    make(&files, &spec).await.unwrap();
    assert_eq!(rows.get("workspaces", "w").await.unwrap(), None);
    gone(&files, &spec).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(dir.path().join("tenants/.tenantry")).unwrap().flatten().collect();
    assert!(
        left.iter().all(|entry| entry.file_name().to_string_lossy().starts_with("canary.db")),
        "{left:?}"
    );
}

#[tokio::test]
async fn other_files_are_foreign() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path()).await;
    for plant in ["nothing", "text", "empty", "other"] {
        let spec = spec(json!({}));
        let file = path(dir.path(), &spec);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        match plant {
            "text" => std::fs::write(&file, "not a database, but longer than its head").unwrap(),
            "empty" => std::fs::write(&file, "").unwrap(),
            "other" => {
                std::fs::write(&file, "").unwrap();
                sql(&file, "CREATE TABLE t (a)").await;
            }
            _ => {}
        }
        let before = std::fs::read(&file).ok();
        let failure = make(&files, &spec).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.class), ("name_taken", FailureClass::Fatal), "{plant}");
        assert_eq!(gone(&files, &spec).await.unwrap()["rows"], json!({}), "{plant}");
        assert_eq!(std::fs::read(&file).ok(), before, "{plant}");
    }
}

#[tokio::test]
async fn a_tenant_has_one_database() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path()).await;
    let first = spec(json!({}));
    make(&files, &first).await.unwrap();
    let second = Spec { name: "another".to_owned(), resource: ResourceId::new(), ..first.clone() };
    assert_eq!(make(&files, &second).await.unwrap_err().code, "name_taken");
    assert!(!files.folder_of(&second).unwrap().exists().unwrap());
    gone(&files, &second).await.unwrap();
    files.scoped(first.tenant.id).list("tasks", 1, None).await.unwrap();
    for name in ["../x", "", ".tenantry", "a/b", "ä"] {
        let spec = Spec { name: name.to_owned(), ..spec(json!({})) };
        assert_eq!(make(&files, &spec).await.unwrap_err().code, "bad_name", "{name:?}");
    }
}

#[tokio::test]
async fn a_file_is_migrated_when_it_is_opened() {
    const TABLE: &str =
        "CREATE TABLE t (tenant_id TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (tenant_id, id)) STRICT;";
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("app")).unwrap();
    std::fs::create_dir_all(dir.path().join("seeds")).unwrap();
    std::fs::write(dir.path().join("app/1_a.sql"), TABLE).unwrap();
    std::fs::write(dir.path().join("seeds/canary.yaml"), "[{table: t, rows: [{id: canary}]}]").unwrap();
    let config = Config {
        migrations: Some(dir.path().to_owned()),
        seeds: Some(dir.path().join("seeds")),
        ..Config::new(dir.path().join("tenants"))
    };
    let spec = spec(json!({}));
    make(&DatabaseSqliteFile::new(config.clone()).await.unwrap(), &spec).await.unwrap();
    std::fs::write(dir.path().join("app/2_b.sql"), "ALTER TABLE t ADD COLUMN n INTEGER;").unwrap();
    let newer = DatabaseSqliteFile::new(config.clone()).await.unwrap();
    let look = async || client::inspect(&newer.folder_of(&spec).unwrap(), &spec).await.unwrap();
    let version = |found: Ownership<RecordedTenant>| match found {
        Ownership::Own(state) => state.version,
        other => panic!("{other:?}"),
    };
    assert_eq!(version(look().await).as_deref(), Some("1"), "looking changes nothing");
    newer.scoped(spec.tenant.id).insert("t", row(json!({ "id": "a", "n": 1 }))).await.unwrap();
    assert_eq!(version(look().await).as_deref(), Some("2"));
    std::fs::write(dir.path().join("app/2_b.sql"), "ALTER TABLE t ADD COLUMN m INTEGER;").unwrap();
    let changed = DatabaseSqliteFile::new(config).await.unwrap();
    assert_eq!(make(&changed, &spec).await.unwrap_err().code, "migration_changed");
}

#[tokio::test]
async fn a_damaged_file_is_reported_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path()).await;
    let spec = spec(json!({}));
    make(&files, &spec).await.unwrap();
    let file = path(dir.path(), &spec);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[16..].fill(0xff);
    std::fs::write(&file, bytes).unwrap();
    for failure in [make(&files, &spec).await.unwrap_err(), gone(&files, &spec).await.unwrap_err()] {
        assert_eq!((failure.code.as_str(), failure.class), ("corrupt", FailureClass::Fatal));
    }
    assert!(file.exists());
}

#[tokio::test]
async fn a_tenant_with_a_full_file_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: Some(160 * 1024), ..Config::new(dir.path().join("tenants")) };
    let files = DatabaseSqliteFile::new(config).await.unwrap();
    let spec = spec(json!({}));
    make(&files, &spec).await.unwrap();
    let rows = files.scoped(spec.tenant.id);
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
    assert!(gone(&files, &spec).await.unwrap()["rows"]["workspaces"].as_u64().unwrap() > 5);
}

#[tokio::test]
async fn the_file_is_private_and_a_blocked_folder_is_retried() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("tenants");
    std::fs::write(&blocked, "not a folder").unwrap();
    let files = files(dir.path()).await;
    let spec = spec(json!({}));
    assert!(files.probe().await.unwrap_err().may_retry());
    assert!(make(&files, &spec).await.unwrap_err().may_retry());
    std::fs::remove_file(&blocked).unwrap();
    files.probe().await.unwrap();
    make(&files, &spec).await.unwrap();
    files.scoped(spec.tenant.id).list("tasks", 1, None).await.unwrap();
    let file = path(dir.path(), &spec);
    for file in [file.with_file_name("tenant.db-wal"), file] {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
    }
}
