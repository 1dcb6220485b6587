//! SQLite databases in files of their own: the provider contract, seeds and receipts.

use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};
use tenantry_databases::sqlite_file::{Config, DatabaseSqliteFile};
use tenantry_provider::{Provider, Spec};

use crate::contract::folders::{Root, must_delete_remains};
use crate::contract::{Environment, ensure, must_keep_contract, rival};
use crate::world::{self, World};

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
        Some(Box::new(DatabaseSqliteFile::new(Config::new(self.root.blocked())).await.unwrap()))
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let root = Root::default();
    let files = DatabaseSqliteFile::new(Config::new(root.path())).await.unwrap();
    let environment = Databases { root, files };
    must_keep_contract(&environment).await;
    must_delete_remains(&environment, &environment.root).await;
}

#[tokio::test]
async fn keeps_the_contract_with_a_warm_pool() {
    let root = Root::default();
    let config = Config { warm: 3, ..Config::new(root.path()) };
    let files = DatabaseSqliteFile::new(config).await.unwrap();
    files.start().await.unwrap();
    files.refilled().await;
    must_keep_contract(&Databases { root, files }).await;
}

#[tokio::test]
async fn a_file_is_seeded_in_the_tenants_language_and_removed_with_a_receipt() {
    let root = Root::default();
    let files = DatabaseSqliteFile::new(Config::new(root.path())).await.unwrap();
    let mut spec = world::spec(json!({ "seed": "defaults" }));
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
