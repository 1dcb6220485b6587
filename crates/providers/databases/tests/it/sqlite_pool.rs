//! The SQLite pool on a real file: the provider contract, seeds and receipts.

use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tempfile::TempDir;
use tenantry_databases::sqlite_pool::{Config, DatabaseSqlitePool};
use tenantry_provider::{Observed, Provider, Spec};

use crate::contract::{Environment, ensure, must_keep_contract, rival};
use crate::world::{self, World};

struct Pool {
    dir: TempDir,
    pool: DatabaseSqlitePool,
    world: World,
}

impl Pool {
    fn file(&self) -> PathBuf {
        self.dir.path().join("pool.db")
    }

    async fn sql(&self, sql: &str) -> Vec<sqlx::sqlite::SqliteRow> {
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(self.file()).create_if_missing(false);
        let Ok(mut connection) = options.connect().await else { return Vec::new() };
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap_or_default();
        connection.close().await.unwrap();
        rows
    }
}

#[async_trait]
impl Environment for Pool {
    fn provider(&self) -> &dyn Provider {
        &self.pool
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({ "migrations": "app", "seed": "defaults" })
    }
    async fn count(&self, spec: &Spec) -> usize {
        let rows = self.sql("SELECT tenant_id FROM workspaces WHERE id = 'default'").await;
        rows.iter().filter(|row| row.get::<String, _>(0) == spec.tenant.id.to_string()).count()
    }
    async fn snapshot(&self) -> String {
        let mut dump = String::new();
        for table in [
            "_tenants",
            "_migrations",
            "workspaces",
            "categories",
            "notification_settings",
            "projects",
            "tasks",
        ] {
            let columns: Vec<String> = self
                .sql(&format!("SELECT name FROM pragma_table_info('{table}')"))
                .await
                .iter()
                .map(|r| r.get(0))
                .collect();
            let row = columns.iter().map(|c| format!("quote({c})")).collect::<Vec<_>>().join(" || ',' || ");
            for row in self.sql(&format!("SELECT {row} FROM {table} ORDER BY 1")).await {
                dump.push_str(&format!("{table}: {}\n", row.get::<String, _>(0)));
            }
        }
        dump
    }
    async fn plant_foreign(&self, spec: &Spec) {
        ensure(self, &rival(spec)).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        ensure(self, spec).await;
        let id = spec.tenant.id;
        self.sql(&format!("DELETE FROM tasks WHERE tenant_id = '{id}'")).await;
        self.sql(&format!("UPDATE _tenants SET completed = NULL WHERE tenant_id = '{id}'")).await;
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        let blocked = self.dir.path().join("blocked");
        std::fs::write(&blocked, "").unwrap();
        Some(Box::new(DatabaseSqlitePool::new(Config::new(blocked.join("pool.db"))).await.unwrap()))
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let pool = DatabaseSqlitePool::new(Config::new(dir.path().join("pool.db"))).await.unwrap();
    must_keep_contract(&Pool { dir, pool, world: World::default() }).await;
}

#[tokio::test]
async fn a_tenant_is_seeded_in_its_language_and_removed_with_a_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let pool = DatabaseSqlitePool::new(Config::new(dir.path().join("pool.db"))).await.unwrap();
    let world = World::default();
    for (locale, language, project) in [
        ("en-GB", "en", "First steps"),
        ("de", "de", "Erste Schritte"),
        ("it-CH", "it", "Primi passi"),
        ("hr", "hr", "Prvi koraci"),
        ("fr", "en", "First steps"),
    ] {
        let mut spec = world::spec(json!({ "seed": "defaults" }));
        spec.tenant.locale = locale.to_owned();
        let outputs = pool.ensure(&world.context(), &spec).await.unwrap().outputs;
        assert_eq!((&outputs["locale"], &outputs["version"]), (&json!(language), &json!("0001")), "{locale}");
        let rows = pool.data().unwrap().scoped(spec.tenant.id);
        let starter = rows.get("projects", "starter").await.unwrap().unwrap();
        assert_eq!(starter["name"], project);
        let workspace = rows.get("workspaces", "default").await.unwrap().unwrap();
        assert_eq!((&workspace["name"], &workspace["locale"]), (&json!(spec.tenant.name), &json!(language)));
        let Observed::Present { version, .. } = pool.observe(&world.context(), &spec).await.unwrap() else {
            panic!()
        };
        assert_eq!(version.as_deref(), Some("0001"));
        assert_eq!(rows.remove_samples().await.unwrap(), json!({ "projects": 0, "tasks": 3 }));
        let receipt = pool.remove(&world.context(), &spec).await.unwrap().receipt;
        let counts = json!({ "workspaces": 1, "categories": 3, "notification_settings": 3, "projects": 1, "tasks": 0 });
        assert_eq!(receipt["rows"], counts);
    }
}
