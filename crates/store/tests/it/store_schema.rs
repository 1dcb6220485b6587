//! The migrations create the same tables on both databases, and the code describes those tables.

use std::collections::BTreeMap;

use serde_json::json;
use tenantry_engine::Ledger as _;
use tenantry_model::{Timestamp, Write, columns};
use tenantry_store::{Store, StoreConfig, WriteBatch, tables};
use tenantry_testkit::{Raw, TestDatabase, TestStore, on_both_stores};

type Tables = BTreeMap<String, BTreeMap<String, (String, bool)>>;

/// Tables and columns with their normalised types, and whether they are nullable.
async fn tables_of(url: &str) -> Tables {
    let db = Raw::connect(url).await;
    let query = match db.is_postgres() {
        false => {
            "SELECT m.name AS table_name, c.name AS column_name, c.type AS type, c.\"notnull\" = 0 AND c.pk = 0 AS nullable
             FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'"
        }
        true => {
            "SELECT table_name, column_name, data_type AS type, is_nullable = 'YES' AS nullable
             FROM information_schema.columns WHERE table_schema = 'public'"
        }
    };
    let mut tables = Tables::new();
    for row in db.rows(query).await {
        let [table, column, kind]: [String; 3] = [0, 1, 2].map(|i| row.get(i));
        let kind = match kind.to_lowercase().as_str() {
            "timestamp_with_timezone_text" | "timestamp with time zone" => "instant".to_owned(),
            "jsonb_text" | "jsonb" => "json".to_owned(),
            // SQLite's integers have 64 bits under every type name.
            "bigint" | "integer" => "integer".to_owned(),
            other => other.to_owned(),
        };
        tables.entry(table).or_default().insert(column, (kind, row.get(3)));
    }
    tables.remove("seaql_migrations");
    db.close().await;
    tables
}

/// Indexes by name: whether they are unique, and their columns.
async fn indexes_of(url: &str) -> BTreeMap<String, (bool, String)> {
    let db = Raw::connect(url).await;
    let query = match db.is_postgres() {
        false => {
            "SELECT i.name AS name, i.\"unique\" = 1 AS is_unique, (SELECT group_concat(name, ',') FROM pragma_index_info(i.name)) AS columns
             FROM sqlite_master m JOIN pragma_index_list(m.name) i WHERE m.type = 'table' AND i.origin = 'c'"
        }
        true => {
            "SELECT c.relname AS name, i.indisunique AS is_unique, (SELECT string_agg(a.attname, ',' ORDER BY array_position(i.indkey::int2[], a.attnum))
             FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)) AS columns
             FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'public' AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid)"
        }
    };
    let mut indexes = BTreeMap::new();
    for row in db.rows(query).await {
        indexes.insert(row.get(0), (row.get(1), row.get(2)));
    }
    db.close().await;
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
        let db = Raw::connect(store.database().url()).await;
        db.execute("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_future', 0)").await;
        db.close().await;
        let config = StoreConfig { url: store.database().url().to_owned(), readers: 1 };
        let refused = Store::open(&config).await.err().expect("refused").to_string();
        assert!(refused.contains("m9999_future") && refused.contains("m0019_sessions"), "{refused}");
    }
}

/// A schema of its own, in a database where another application keeps migrations in `public`; and a URL that names the primary,
/// as those of replicated servers do.
#[tokio::test]
async fn a_registry_shares_a_database_with_another_application() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let db = Raw::connect(database.url()).await;
    db.execute("CREATE TABLE public.seaql_migrations (version varchar PRIMARY KEY, applied_at bigint)").await;
    db.execute("INSERT INTO public.seaql_migrations VALUES ('m9999_of_another', 0)").await;
    db.execute("CREATE SCHEMA tenantry").await;
    let url = database.url();
    let query = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{query}options[search_path]=tenantry,public&target_session_attrs=read-write");
    for _ in 0..2 {
        let store = Store::open(&StoreConfig { url: url.clone(), readers: 1 }).await.unwrap();
        store.ping().await.unwrap();
        store.close().await;
    }
    let query = "SELECT count(*)::text FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(db.rows(query).await[0].get::<String>(0), "1");
    db.close().await;
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

/// A registry that the release before this store made and wrote, by its own code.
const SQLITE: &str = include_str!("../../fixtures/registry_m0015.sqlite.sql");
const POSTGRES: &str = include_str!("../../fixtures/registry_m0015.postgres.sql");

async fn goes_on(database: TestDatabase, made: &str, new: TestStore) {
    let create = if database.folder().is_some() { "?mode=rwc" } else { "" };
    let raw = Raw::connect(&format!("{}{create}", database.url())).await;
    raw.execute(made).await;
    raw.close().await;
    let config = StoreConfig { url: database.url().to_owned(), readers: 2 };
    let store = Store::open(&config).await.unwrap();
    let (url, new) = (database.url(), new.database().url());
    assert_eq!(tables_of(url).await, tables_of(new).await, "a new registry has the same tables");
    assert_eq!(indexes_of(url).await, indexes_of(new).await);

    let id = "ten_06dz0000000000000000000001";
    let at: Timestamp = "2026-11-30T01:02:03.456789Z".parse().unwrap();
    let tenant = store.tenant(id).await.unwrap().expect("the tenant");
    assert_eq!((tenant.name.as_deref(), tenant.version, *tenant.created_at), (Some("Zoë & Co"), 3, at));
    assert_eq!((tenant.labels, tenant.activated_at.map(Timestamp::from)), (json!({ "a": "b" }), Some(at)));
    let events = store.events_after(0, 10).await.unwrap();
    assert_eq!(
        events.iter().map(|event| &event.data).collect::<Vec<_>>(),
        [&json!({ "n": 1.5, "t": [true, null] })]
    );
    assert!(store.member("usr_1").await.unwrap().expect("the member").must_change_password);
    assert_eq!(store.slots("eu", "database").await.unwrap().len(), 1);
    assert!(store.belongs_to("fingerprint").await.unwrap() && !store.belongs_to("another").await.unwrap());

    let epoch = store.begin_epoch().await.unwrap();
    assert_eq!(epoch, 2);
    let rename = |version: i64| {
        let (key, as_read) = (columns! { "id": id }, columns! { "version": version });
        Write::compare_and_set("tenants", key, as_read, columns! { "name": "Acme", "suspended_at": at })
    };
    let event = columns! { "id": "evt_2", "type": "tenant.renamed", "data": json!({}), "at": at };
    let batch = WriteBatch { writes: vec![rename(3), Write::insert("events", event)], epoch: Some(epoch) };
    store.commit(batch).await.unwrap();
    store.commit(WriteBatch::new(vec![rename(3)])).await.unwrap_err();
    store.close().await;
    let store = Store::open(&config).await.unwrap();
    let tenant = store.tenant(id).await.unwrap().expect("the tenant");
    assert_eq!((tenant.name.as_deref(), tenant.version), (Some("Acme"), 4));
    assert_eq!(tenant.suspended_at.map(Timestamp::from), Some(at));
    store.close().await;
}

#[tokio::test]
async fn a_registry_of_the_release_before_goes_on_on_sqlite() {
    goes_on(TestDatabase::sqlite(), SQLITE, TestStore::sqlite().await).await;
}

#[tokio::test]
async fn a_registry_of_the_release_before_goes_on_on_postgres() {
    let (Some(database), Some(new)) = (TestDatabase::postgres().await, TestStore::postgres().await) else {
        return;
    };
    goes_on(database, POSTGRES, new).await;
}

/// A tenant's login on the same server could otherwise connect, and take the locks with which Tenantry starts.
#[tokio::test]
async fn a_new_database_is_closed_to_other_roles() {
    for (before, may_connect) in [("SELECT", false), ("CREATE TABLE of_another_application ()", true)] {
        let Some(database) = TestDatabase::postgres().await else { return };
        let db = Raw::connect(database.url()).await;
        db.execute(before).await;
        Store::open(&StoreConfig { url: database.url().to_owned(), readers: 1 }).await.unwrap().close().await;
        let query = "SELECT has_database_privilege('public', current_database(), 'CONNECT')";
        assert_eq!(db.rows(query).await[0].get::<bool>(0), may_connect, "{before}");
        db.close().await;
    }
}
