//! The provider contract for providers that keep files for each tenant: databases, buckets, manifests and
//! handed-off files.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};
use tempfile::TempDir;
use tenantry_builtin::bucket_folder::{BucketFolder, Config as BucketConfig};
use tenantry_builtin::namespace_manifests::{Config as ManifestsConfig, NamespaceManifests};
use tenantry_databases::sqlite_file::{Config as FileConfig, DatabaseSqliteFile};
use tenantry_provider::{Observed, Provider, Spec};

use crate::conform::{ensure, must_keep_it, rival};
use crate::contract::Environment;
use crate::world::World;

/// Files below a folder with their content, sorted.
fn texts(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            all.push(format!("{}\n", path.display()));
            all.extend(texts(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            all.push(format!("{}: {}\n", path.display(), String::from_utf8_lossy(&bytes)));
        }
    }
    all
}

/// A folder with a folder for each tenant.
struct Root {
    dir: TempDir,
    world: World,
}

impl Root {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), world: World::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// The spec's folder, and entries whose names contain its name.
    fn count(&self, spec: &Spec) -> usize {
        let entries = std::fs::read_dir(self.path()).into_iter().flatten();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(&spec.name))
            .count()
    }

    /// Leaves a draft like that of an attempt that died.
    fn leave_draft(&self, spec: &Spec, file: &str) {
        let draft = self.path().join(".tenantry").join(format!("{}.draft", spec.resource.suffix()));
        std::fs::create_dir_all(&draft).unwrap();
        std::fs::write(draft.join(file), "half of").unwrap();
    }

    fn blocked(&self) -> PathBuf {
        let blocked = self.dir.path().join("blocked");
        std::fs::write(&blocked, "").unwrap();
        blocked
    }
}

struct Databases {
    root: Root,
    files: DatabaseSqliteFile,
}

impl Databases {
    async fn connect(&self, spec: &Spec) -> SqliteConnection {
        let file = self.root.path().join(&spec.name).join("tenant.db");
        sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap()
    }
}

const TABLES: [&str; 7] =
    ["_tenants", "_migrations", "workspaces", "categories", "notification_settings", "projects", "tasks"];

#[async_trait]
impl Environment for Databases {
    fn provider(&self) -> &dyn Provider {
        &self.files
    }
    fn world(&self) -> &World {
        &self.root.world
    }
    fn settings(&self) -> Value {
        json!({ "migrations": "app", "seed": "defaults" })
    }
    async fn count(&self, spec: &Spec) -> usize {
        self.root.count(spec)
    }
    async fn snapshot(&self) -> String {
        let mut dump = String::new();
        let folders: Vec<PathBuf> =
            std::fs::read_dir(self.root.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        for folder in folders.iter().filter(|folder| folder.join("tenant.db").exists()) {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.join("tenant.db"));
            let mut connection = options.connect().await.unwrap();
            for table in TABLES {
                let columns = format!(
                    "SELECT group_concat('quote(' || name || ')', ' || ') FROM pragma_table_info('{table}')"
                );
                let row: String =
                    sqlx::query_scalar(AssertSqlSafe(columns)).fetch_one(&mut connection).await.unwrap();
                let rows = sqlx::query(AssertSqlSafe(format!("SELECT {row} FROM {table} ORDER BY 1")));
                for row in rows.fetch_all(&mut connection).await.unwrap() {
                    dump.push_str(&format!("{} {table} {}\n", folder.display(), row.get::<String, _>(0)));
                }
            }
            connection.close().await.unwrap();
        }
        dump
    }
    async fn plant_foreign(&self, spec: &Spec) {
        ensure(self, &rival(spec)).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        ensure(self, spec).await;
        let mut connection = self.connect(spec).await;
        let half = "DELETE FROM tasks; UPDATE _tenants SET completed = NULL";
        sqlx::raw_sql(half).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        self.root.leave_draft(spec, "tenant.db");
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        Some(Box::new(DatabaseSqliteFile::new(FileConfig::new(self.root.blocked())).await.unwrap()))
    }
}

#[tokio::test]
async fn sqlite_file() {
    let root = Root::new();
    let files = DatabaseSqliteFile::new(FileConfig::new(root.path())).await.unwrap();
    let environment = Databases { root, files };
    must_keep_it(&environment).await;
    remains_are_reported(&environment, &environment.root).await;
}

#[tokio::test]
async fn sqlite_file_with_a_warm_pool() {
    let root = Root::new();
    let config = FileConfig { warm: 3, ..FileConfig::new(root.path()) };
    let files = DatabaseSqliteFile::new(config).await.unwrap();
    files.start().await.unwrap();
    files.refilled().await;
    must_keep_it(&Databases { root, files }).await;
}

#[tokio::test]
async fn a_file_is_seeded_in_the_tenants_language_and_removed_with_a_receipt() {
    let root = Root::new();
    let files = DatabaseSqliteFile::new(FileConfig::new(root.path())).await.unwrap();
    let mut spec = crate::world::spec(json!({ "seed": "defaults" }));
    spec.tenant.locale = "it-CH".to_owned();
    let outputs = files.ensure(&root.world.context(), &spec).await.unwrap().outputs;
    let expected = json!({
        "database": spec.name, "isolation": "database", "migrations": "app", "version": "0001",
        "seed": "defaults", "locale": "it", "canary": outputs["canary"],
        "encryption": "none",
    });
    assert_eq!(outputs, expected);
    let rows = files.data().unwrap().scoped(spec.tenant.id);
    let starter = rows.get("projects", "starter").await.unwrap().unwrap();
    assert_eq!(starter["name"], "Primi passi");
    assert_eq!(rows.remove_samples().await.unwrap(), json!({ "projects": 0, "tasks": 3 }));
    let receipt = files.remove(&root.world.context(), &spec).await.unwrap().receipt;
    let counts =
        json!({ "workspaces": 1, "categories": 3, "notification_settings": 3, "projects": 1, "tasks": 0 });
    assert_eq!(receipt["rows"], counts);
    assert!(receipt["bytes"].as_u64().unwrap() > 4096);
}

/// Remains of a removal or of an attempt: the tenant's files under a private name.
async fn remains_are_reported(environment: &dyn Environment, root: &Root) {
    for word in ["gone", "draft"] {
        let spec = crate::world::spec(environment.settings());
        ensure(environment, &spec).await;
        let context = environment.world().context();
        let hidden = root.path().join(".tenantry").join(format!("{}.{word}", spec.resource.suffix()));
        std::fs::rename(root.path().join(&spec.name), &hidden).unwrap();
        let seen = environment.provider().observe(&context, &spec).await.unwrap();
        assert!(matches!(seen, Observed::Present { .. }) && !seen.is_healthy(), "{word}: {seen:?}");
        environment.provider().remove(&context, &spec).await.unwrap();
        assert_eq!(
            environment.provider().observe(&context, &spec).await.unwrap(),
            Observed::Absent,
            "{word}"
        );
        assert!(!hidden.exists(), "{word}");
    }
}

struct Buckets {
    root: Root,
    buckets: BucketFolder,
}

#[async_trait]
impl Environment for Buckets {
    fn provider(&self) -> &dyn Provider {
        &self.buckets
    }
    fn world(&self) -> &World {
        &self.root.world
    }
    fn settings(&self) -> Value {
        json!({
            "quota_bytes": "1GiB", "encryption": "enhanced", "lifecycle": [{ "prefix": "tmp/", "expire_after": 7 }],
        })
    }
    async fn count(&self, spec: &Spec) -> usize {
        self.root.count(spec)
    }
    async fn snapshot(&self) -> String {
        texts(&self.root.path()).concat()
    }
    async fn plant_foreign(&self, spec: &Spec) {
        ensure(self, &rival(spec)).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        ensure(self, spec).await;
        std::fs::remove_dir(self.root.path().join(&spec.name).join("objects")).unwrap();
        self.root.leave_draft(spec, "policy.json");
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        Some(Box::new(BucketFolder::new(BucketConfig::new(self.root.blocked()))))
    }
}

#[tokio::test]
async fn folder_bucket() {
    let root = Root::new();
    let buckets = BucketFolder::new(BucketConfig::new(root.path()));
    let environment = Buckets { root, buckets };
    must_keep_it(&environment).await;
    remains_are_reported(&environment, &environment.root).await;
}

struct Manifests {
    root: Root,
    manifests: NamespaceManifests,
}

#[async_trait]
impl Environment for Manifests {
    fn provider(&self) -> &dyn Provider {
        &self.manifests
    }
    fn world(&self) -> &World {
        &self.root.world
    }
    fn settings(&self) -> Value {
        json!({ "cpu": "4", "memory": "8Gi", "storage": "100Gi", "pods": 50 })
    }
    async fn count(&self, spec: &Spec) -> usize {
        self.root.count(spec)
    }
    async fn snapshot(&self) -> String {
        texts(&self.root.path()).concat()
    }
    async fn plant_foreign(&self, spec: &Spec) {
        ensure(self, &rival(spec)).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        ensure(self, spec).await;
        std::fs::remove_file(self.root.path().join(&spec.name).join("role.yaml")).unwrap();
        self.root.leave_draft(spec, "namespace.yaml");
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        Some(Box::new(NamespaceManifests::new(ManifestsConfig::new(self.root.blocked()))))
    }
}

#[tokio::test]
async fn manifests() {
    let root = Root::new();
    let manifests = NamespaceManifests::new(ManifestsConfig::new(root.path()));
    let environment = Manifests { root, manifests };
    must_keep_it(&environment).await;
    remains_are_reported(&environment, &environment.root).await;
}
