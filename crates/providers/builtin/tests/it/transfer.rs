//! Export and load of every provider with tenants' data, on real files and a real server: awkward values,
//! other tenants' data, repeated loads, and loads that were interrupted.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use sqlx::postgres::{PgAdvisoryLock, PgConnectOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _};
use tempfile::TempDir;
use tenantry_builtin::billing_builtin::BillingBuiltin;
use tenantry_builtin::bucket_folder::{BucketFolder, Config as BucketConfig};
use tenantry_builtin::config_builtin::ConfigBuiltin;
use tenantry_builtin::identity_builtin::IdentityBuiltin;
use tenantry_databases::sqlite_file::{Config as FileConfig, DatabaseSqliteFile};
use tenantry_databases::sqlite_pool::{Config as PoolConfig, DatabaseSqlitePool};
use tenantry_model::Failure;
use tenantry_provider::objects::New;
use tenantry_provider::transfer::{Arriving, Bytes, Content, Nowhere, Sink, Source, broken};
use tenantry_provider::{Provider, Spec};
use tokio::io::AsyncReadExt;

use crate::postgres::{Fixture, Model};
use crate::world::{World, object, spec};

/// Exported files.
#[derive(Clone, Default)]
struct Parcel(Vec<(String, Vec<u8>)>);

#[async_trait]
impl Sink for Parcel {
    async fn file(&mut self, path: &str, size: u64, bytes: Bytes<'_>) -> Result<(), Failure> {
        let mut all = Vec::new();
        bytes.read_to_end(&mut all).await.map_err(|error| broken(&error))?;
        assert_eq!(all.len() as u64, size, "{path}");
        self.0.push((path.to_owned(), all));
        Ok(())
    }
}

impl Parcel {
    fn text(&self) -> String {
        self.0.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// The whole export, or this many bytes and then nothing, as if the connection had broken.
    fn opened(&self, cut: Option<usize>) -> Opened {
        Opened { files: self.0.clone().into_iter().collect(), cut, bytes: Box::new(tokio::io::empty()) }
    }
}

struct Opened {
    files: std::collections::VecDeque<(String, Vec<u8>)>,
    cut: Option<usize>,
    bytes: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
}

#[async_trait]
impl Source for Opened {
    async fn next(&mut self) -> Result<Option<Arriving<'_>>, Failure> {
        if self.cut == Some(0) {
            return Err(broken(&std::io::ErrorKind::UnexpectedEof.into()));
        }
        let Some((path, mut bytes)) = self.files.pop_front() else { return Ok(None) };
        let size = bytes.len() as u64;
        if let Some(cut) = &mut self.cut {
            bytes.truncate(*cut);
            *cut = cut.saturating_sub(usize::try_from(size).unwrap());
        }
        self.bytes = Box::new(std::io::Cursor::new(bytes));
        Ok(Some(Arriving { path, size, bytes: &mut *self.bytes }))
    }
}

/// A provider and how test data gets into it.
#[async_trait]
trait Shop: Send + Sync {
    fn provider(&self) -> &dyn Provider;
    fn world(&self) -> &World;
    fn settings(&self) -> Value;
    /// Adds awkward values and this word.
    async fn fill(&self, spec: &Spec, word: &str);
}

impl dyn Shop + '_ {
    async fn tenant(&self) -> Spec {
        let mut spec = spec(self.settings());
        spec.name = spec.name.replace('-', "_");
        let made = self.provider().ensure(&self.world().context(), &spec).await.unwrap();
        self.world().registry.apply(&made.writes);
        spec
    }

    async fn export(&self, spec: &Spec) -> (Parcel, Content) {
        let mut parcel = Parcel::default();
        let transfer = self.provider().transfer().unwrap();
        let content = transfer.export(&self.world().context(), spec, &mut parcel).await.unwrap();
        (parcel, content)
    }

    async fn load(&self, spec: &Spec, source: &mut dyn Source) -> Result<(), Failure> {
        let transfer = self.provider().transfer().unwrap();
        let writes = transfer.load(&self.world().context(), spec, source).await?;
        self.world().registry.apply(&writes);
        Ok(())
    }

    async fn content(&self, spec: &Spec) -> Content {
        let transfer = self.provider().transfer().unwrap();
        transfer.export(&self.world().context(), spec, &mut Nowhere).await.unwrap()
    }
}

/// What every provider must keep.
async fn round_trip(shop: &dyn Shop) {
    let (one, two, bare) = (shop.tenant().await, shop.tenant().await, shop.tenant().await);
    shop.fill(&one, "words-of-one").await;
    shop.fill(&two, "words-of-two").await;
    let (parcel, content) = shop.export(&one).await;
    let (_, others) = shop.export(&two).await;
    assert!(parcel.text().contains("words-of-one"), "in clear text");
    assert!(!parcel.text().contains("words-of-two"), "no other tenant's data");
    assert_ne!(content.digest, others.digest);
    assert_eq!(shop.content(&one).await, content, "a second export is equal");

    let new = shop.tenant().await;
    for cut in [1, parcel.0.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() / 2] {
        shop.load(&new, &mut parcel.opened(Some(cut))).await.expect_err("it was interrupted");
    }
    for time in ["first", "second"] {
        shop.load(&new, &mut parcel.opened(None)).await.unwrap();
        assert_eq!(shop.content(&new).await, content, "loaded for the {time} time");
    }
    assert_eq!(shop.content(&two).await, others, "other tenants are unchanged");
    assert_eq!(shop.content(&one).await, content);

    // Loading an empty export deletes everything.
    let (nothing, none) = shop.export(&bare).await;
    shop.load(&new, &mut nothing.opened(None)).await.unwrap();
    assert_eq!(shop.content(&new).await, none);

    let mut stranger = one.clone();
    stranger.claim = "tenantry:another:owner".to_owned();
    let transfer = shop.provider().transfer().unwrap();
    let refused = transfer.export(&shop.world().context(), &stranger, &mut Nowhere).await.unwrap_err();
    assert!(["no_such_tenant", "no_such_bucket"].contains(&&*refused.code), "{refused}");
    let odd = Parcel(vec![("nothing.000001.csv".to_owned(), b"\"a\"\n1\n".to_vec())]);
    assert_eq!(shop.load(&new, &mut odd.opened(None)).await.unwrap_err().code, "bad_archive");
    assert_eq!(shop.content(&new).await, none, "a rejected load changes nothing");
}

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
async fn fill_tables(shop: &dyn Shop, spec: &Spec, word: &str, things: Vec<Value>) {
    let rows = shop.provider().data().unwrap().scoped(spec.tenant.id);
    let insert = |table: &'static str, row: Value| {
        let (rows, row): (_, Map<String, Value>) = (rows.clone(), object(row));
        async move { rows.insert(table, row).await.unwrap() }
    };
    insert("projects", json!({ "id": "p", "name": word })).await;
    for (fixture, text) in TEXTS.iter().enumerate() {
        insert("tasks", json!({ "id": format!("t{fixture}"), "project_id": "p", "title": text })).await;
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

async fn fill_sqlite(shop: &dyn Shop, spec: &Spec, file: PathBuf, word: &str) {
    fill_tables(shop, spec, word, Vec::new()).await;
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
impl Shop for SqlitePool {
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
    round_trip(&SqlitePool { dir, provider, world: World::default() }).await;
}

struct SqliteFile {
    dir: TempDir,
    provider: DatabaseSqliteFile,
    world: World,
}

#[async_trait]
impl Shop for SqliteFile {
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
    round_trip(&SqliteFile { dir, provider, world: World::default() }).await;
}

const POSTGRES_THINGS: &str = "
CREATE TABLE things (
    tenant_id text NOT NULL, id text NOT NULL, number bigint GENERATED ALWAYS AS IDENTITY, parent text, raw bytea,
    amount numeric, at timestamptz, day date, took interval, doc jsonb, plain json, tags text[], real float8, flag boolean,
    \"Odd \"\" name\" text, doubled bigint GENERATED ALWAYS AS (length(id) * 2) STORED,
    PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, parent) REFERENCES things (tenant_id, id)
);
CREATE TABLE owners (tenant_id text NOT NULL PRIMARY KEY);";

struct Postgres(Fixture);

#[async_trait]
impl Shop for Postgres {
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
    let shop = Postgres(fixture);
    round_trip(&shop).await;

    // Generated numbers continue after the loaded ones.
    let (old, new) = ((&shop as &dyn Shop).tenant().await, (&shop as &dyn Shop).tenant().await);
    shop.fill(&old, "x").await;
    let (parcel, _) = (&shop as &dyn Shop).export(&old).await;
    (&shop as &dyn Shop).load(&new, &mut parcel.opened(None)).await.unwrap();
    let rows = shop.0.provider.data().unwrap().scoped(new.tenant.id);
    let there = rows.list("things", 100, None).await.unwrap().rows;
    let added = rows.insert("things", object(json!({ "id": "z" }))).await.unwrap();
    assert!(there.iter().all(|row| row["number"].as_i64() < added["number"].as_i64()), "{added} {there:?}");
    assert_eq!(
        there,
        shop.0.provider.data().unwrap().scoped(old.tenant.id).list("things", 100, None).await.unwrap().rows
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
    let shop = Postgres(fixture);
    let shop = &shop as &dyn Shop;
    let (greedy, other) = (shop.tenant().await, shop.tenant().await);
    let add = async |spec: &Spec, row: Value| {
        shop.provider().data().unwrap().scoped(spec.tenant.id).insert("things", object(row)).await
    };
    add(&greedy, json!({ "id": "last", "number": i64::MAX })).await.unwrap();
    for spec in [&greedy, &other] {
        let (parcel, _) = shop.export(spec).await;
        shop.load(spec, &mut parcel.opened(None)).await.unwrap();
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
    let (pool, database) = (&pool as &dyn Shop, &database as &dyn Shop);
    let (one, two) = (pool.tenant().await, database.tenant().await);
    fill_tables(pool, &one, "word", Vec::new()).await;
    let (parcel, content) = pool.export(&one).await;
    database.load(&two, &mut parcel.opened(None)).await.unwrap();
    assert_eq!(database.content(&two).await, content);
    assert_eq!(pool.provider().transfer().unwrap().form(), database.provider().transfer().unwrap().form());
}

struct Bucket {
    _dir: TempDir,
    provider: BucketFolder,
    world: World,
    level: &'static str,
}

#[async_trait]
impl Shop for Bucket {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({ "encryption": self.level })
    }
    async fn fill(&self, spec: &Spec, word: &str) {
        let context = self.world.context();
        let objects = self.provider.objects().unwrap().scoped(spec.tenant.id, context.sealer.clone());
        let keys = ["a", "a/b", "a//b", "a/", "漢字 🎉.pdf", "\"quoted\", with comma", "empty", "z"];
        for (fixture, key) in keys.into_iter().enumerate() {
            let text = if key == "empty" { String::new() } else { word.repeat(fixture * 30_000 + 1) };
            let content_type = (fixture % 2 == 0).then_some("text/plain; charset=utf-8");
            let new = New { key, content_type, at: context.now };
            objects.put(new, Box::pin(std::io::Cursor::new(text.into_bytes()))).await.unwrap();
        }
    }
}

#[tokio::test]
async fn bucket_folder() {
    for level in ["standard", "enhanced"] {
        let dir = tempfile::tempdir().unwrap();
        let provider = BucketFolder::new(BucketConfig::new(dir.path().join("root")));
        round_trip(&Bucket { _dir: dir, provider, world: World::default(), level }).await;
    }
}

/// A provider whose rows are in the registry.
struct BuiltIn<P> {
    provider: P,
    world: World,
}

#[async_trait]
impl<P: Provider> Shop for BuiltIn<P> {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({})
    }
    async fn fill(&self, _: &Spec, _: &str) {}
}

#[tokio::test]
async fn settings() {
    let shop = BuiltIn { provider: ConfigBuiltin::default(), world: World::default() };
    let shop = &shop as &dyn Shop;
    let (old, new) = (shop.tenant().await, shop.tenant().await);
    shop.world().registry.with("configs", |rows| {
        let row = rows.iter_mut().find(|row| row["tenant_id"] == json!(old.tenant.id)).unwrap();
        row.insert(
            "settings".to_owned(),
            json!({ "quotas": { "seats": 5 }, "a": { "deep": [1, null, "ü"] } }),
        );
        row.insert("flags".to_owned(), json!({ "sso": true }));
    });
    let (parcel, content) = shop.export(&old).await;
    shop.load(&new, &mut parcel.opened(None)).await.unwrap();
    assert_eq!(shop.content(&new).await, content);
    let quotas = shop.world().registry.with("configs", |rows| {
        rows.iter().find(|row| row["tenant_id"] == json!(new.tenant.id)).unwrap()["settings"]["quotas"]
            .clone()
    });
    assert_eq!(quotas, json!({}), "quotas come from the plan");
}

#[tokio::test]
async fn members() {
    let shop = BuiltIn { provider: IdentityBuiltin::default(), world: World::default() };
    let shop = &shop as &dyn Shop;
    let (old, new) = (shop.tenant().await, shop.tenant().await);
    let (parcel, content) = shop.export(&old).await;
    assert!(parcel.text().contains(&old.tenant.admin.email), "in clear text");
    for secret in shop.world().secrets() {
        assert!(!parcel.text().contains(&secret), "a secret was exported");
    }
    for _ in 0..2 {
        shop.load(&new, &mut parcel.opened(None)).await.unwrap();
    }
    let both = shop.content(&new).await;
    assert_eq!((content.counts["members"], both.counts["members"]), (1, 2), "the first administrator stays");
    let invited = shop.world().registry.with("invitations", |rows| {
        rows.iter().filter(|row| row["tenant_id"] == json!(new.tenant.id)).count()
    });
    assert_eq!(invited, 2, "each loaded member is invited");
    // The same members in a tenant without others.
    let mut alike = shop.tenant().await;
    alike.tenant.admin = old.tenant.admin.clone();
    shop.world()
        .registry
        .with("members", |rows| rows.retain(|row| row["tenant_id"] != json!(alike.tenant.id)));
    shop.load(&alike, &mut parcel.opened(None)).await.unwrap();
    assert_eq!(shop.content(&alike).await, content);
}

#[tokio::test]
async fn invoices_are_exported_and_not_loaded() {
    let shop = BuiltIn { provider: BillingBuiltin::default(), world: World::default() };
    let shop = &shop as &dyn Shop;
    let old = shop.tenant().await;
    let (parcel, content) = shop.export(&old).await;
    assert!(parcel.text().contains("INV-"), "{}", parcel.text());
    assert_eq!((content.counts["subscriptions"], content.counts["invoices"]), (1, 1));
    assert!(shop.provider().transfer().unwrap().one_way().is_some());
    assert_eq!(shop.load(&old, &mut parcel.opened(None)).await.unwrap_err().code, "one_way");
}

/// The last statement of a dead process may still run: no rows may be committed after a removal that did not
/// see them.
#[tokio::test]
async fn a_load_commits_under_the_removals_lock() {
    let Some(fixture) = Fixture::of(Model::Pool).await else { return };
    let shop = Postgres(fixture);
    let dyn_shop = &shop as &dyn Shop;
    let (one, two) = (dyn_shop.tenant().await, dyn_shop.tenant().await);
    dyn_shop
        .provider()
        .data()
        .unwrap()
        .scoped(two.tenant.id)
        .insert("projects", object(json!({ "id": "more", "name": "more" })))
        .await
        .unwrap();
    let (parcel, more) = dyn_shop.export(&two).await;
    let before = dyn_shop.content(&one).await;
    let options: PgConnectOptions = shop.0.url().parse().unwrap();
    let mut removal = options.connect().await.unwrap();
    let lock =
        PgAdvisoryLock::new(format!("tenantry pool {}", one.name)).acquire(&mut removal).await.unwrap();
    let waits = async {
        let waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        while shop.0.sql(waiting).await.is_empty() {}
    };
    let mut source = parcel.opened(None);
    tokio::select! {
        ended = dyn_shop.load(&one, &mut source) => panic!("it did not wait: {ended:?}"),
        () = waits => {}
    }
    drop(lock);
    assert_eq!(dyn_shop.content(&one).await, before, "the interrupted load changed nothing");
    removal.close().await.unwrap();
    dyn_shop.load(&one, &mut parcel.opened(None)).await.unwrap();
    assert_eq!(dyn_shop.content(&one).await, more);
}
