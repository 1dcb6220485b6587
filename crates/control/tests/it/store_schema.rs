//! The migrations create the same tables on both databases, and the entities describe those tables.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, Database, DbBackend, Statement};
use tenantry_store::{Store, StoreConfig, tables};
use tenantry_testkit::{TestDatabase, TestStore, on_both_stores};

type Tables = BTreeMap<String, BTreeMap<String, (String, bool)>>;

/// Tables and columns with their normalised types, and whether they are nullable.
async fn tables_of(url: &str) -> Tables {
    let db = Database::connect(url).await.unwrap();
    let backend = db.get_database_backend();
    let query = match backend {
        DbBackend::Sqlite => {
            "SELECT m.name AS table_name, c.name AS column_name, c.type AS type, c.\"notnull\" = 0 AND c.pk = 0 AS nullable
             FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'"
        }
        _ => {
            "SELECT table_name, column_name, data_type AS type, is_nullable = 'YES' AS nullable
             FROM information_schema.columns WHERE table_schema = 'public'"
        }
    };
    let mut tables = Tables::new();
    for row in db.query_all_raw(Statement::from_string(backend, query)).await.unwrap() {
        let text = |column: &str| row.try_get::<String>("", column).unwrap();
        let kind = match text("type").to_lowercase().as_str() {
            "timestamp_with_timezone_text" | "timestamp with time zone" => "instant".to_owned(),
            "jsonb_text" | "jsonb" => "json".to_owned(),
            // SQLite's integers have 64 bits under every type name.
            "bigint" | "integer" => "integer".to_owned(),
            other => other.to_owned(),
        };
        let nullable = row.try_get::<bool>("", "nullable").unwrap();
        tables.entry(text("table_name")).or_default().insert(text("column_name"), (kind, nullable));
    }
    tables.remove("seaql_migrations");
    db.close().await.unwrap();
    tables
}

/// Indexes by name: whether they are unique, and their columns.
async fn indexes_of(url: &str) -> BTreeMap<String, (bool, String)> {
    let db = Database::connect(url).await.unwrap();
    let backend = db.get_database_backend();
    let query = match backend {
        DbBackend::Sqlite => {
            "SELECT i.name AS name, i.\"unique\" = 1 AS is_unique, (SELECT group_concat(name, ',') FROM pragma_index_info(i.name)) AS columns
             FROM sqlite_master m JOIN pragma_index_list(m.name) i WHERE m.type = 'table' AND i.origin = 'c'"
        }
        _ => {
            "SELECT c.relname AS name, i.indisunique AS is_unique, (SELECT string_agg(a.attname, ',' ORDER BY array_position(i.indkey::int2[], a.attnum))
             FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)) AS columns
             FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'public' AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid)"
        }
    };
    let mut indexes = BTreeMap::new();
    for row in db.query_all_raw(Statement::from_string(backend, query)).await.unwrap() {
        let get = |column: &str| row.try_get::<String>("", column).unwrap();
        indexes.insert(get("name"), (row.try_get::<bool>("", "is_unique").unwrap(), get("columns")));
    }
    db.close().await.unwrap();
    indexes
}

#[tokio::test]
async fn both_databases_have_the_same_tables() {
    let sqlite = TestStore::sqlite().await;
    let Some(postgres) = TestStore::postgres().await else { return };
    let (sqlite, postgres) = (sqlite.database().url(), postgres.database().url());
    assert_eq!(tables_of(sqlite).await, tables_of(postgres).await);
    let indexes = indexes_of(sqlite).await;
    assert_eq!(indexes, indexes_of(postgres).await);
    assert!(indexes.len() > 10, "{indexes:?}");
}

on_both_stores! {
    async fn the_entities_describe_the_tables(store: TestStore) {
        let there = tables_of(store.database().url()).await;
        let there: BTreeMap<&str, BTreeMap<&str, bool>> = there
            .iter()
            .map(|(table, columns)| (table.as_str(), columns.iter().map(|(name, (_, null))| (name.as_str(), *null)).collect()))
            .collect();
        assert_eq!(there, tables());
        assert!(tables().values().all(|columns| columns.len() <= 32), "a set of columns is a bit mask in a u32");
    }

    async fn rows_of_a_tenant_are_found_by_an_index(store: TestStore) {
        let indexes = indexes_of(store.database().url()).await;
        // Tables with the tenant as their primary key.
        let by_key = ["configs"];
        for (table, columns) in tables() {
            let by_tenant = |(name, (_, of)): (&String, &(bool, String))| {
                name.starts_with(&format!("{table}_")) && of.split(',').next() == Some("tenant_id")
            };
            if columns.contains_key("tenant_id") && !by_key.contains(&table) {
                assert!(indexes.iter().any(by_tenant), "{table} has no index on tenant_id");
            }
        }
    }

    async fn opening_again_changes_nothing(store: TestStore) {
        let before = tables_of(store.database().url()).await;
        store.open_again().await.close().await;
        assert_eq!(tables_of(store.database().url()).await, before);
    }

    async fn a_newer_registry_is_rejected(store: TestStore) {
        let db = Database::connect(store.database().url()).await.unwrap();
        db.execute_unprepared("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_future', 0)").await.unwrap();
        db.close().await.unwrap();
        let config = StoreConfig { url: store.database().url().to_owned(), readers: 1 };
        let refused = Store::open(&config).await.err().expect("refused").to_string();
        assert!(refused.contains("m9999_future"), "{refused}");
    }
}

#[tokio::test]
async fn errors_of_opening_name_the_reason() {
    let database = TestDatabase::sqlite();
    let missing = format!("sqlite://{}/no/such/folder/registry.db", database.folder().unwrap().display());
    let is_folder = format!("sqlite://{}", database.folder().unwrap().display());
    for (url, word) in [
        ("mysql://localhost/x", "sqlite:"),
        ("sqlite:", "path"),
        ("postgres://u:secret@127.0.0.1:1/x", "refused"),
        (&missing, "unable to open"),
        (&is_folder, "unable to open"),
    ] {
        let error = Store::open(&StoreConfig { url: url.to_owned(), readers: 1 })
            .await
            .err()
            .expect("refused")
            .to_string();
        assert!(error.contains(word), "{url}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
