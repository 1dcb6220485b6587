//! Tests of transfers that end early, and of rows that cannot be exported. The round trip is tested in
//! `tests/it`.

use std::collections::VecDeque;
use std::time::Duration;

use tenantry_model::id::{OperationId, ResourceId};
use tenantry_provider::transfer::{Arriving, Bytes, Nowhere, broken};
use tenantry_provider::verbs::{Person, Tenant};

use super::*;

/// Time in which an abandoned thread ends, at most.
const END: Duration = Duration::from_secs(10);

/// A pool with one tenant, which has a row.
async fn filled() -> (Folder, DatabaseSqlitePool, Spec) {
    let files = Folder::new(&[("1_a.sql", TABLE)]);
    let pool = files.open().await.unwrap();
    let tenant = TenantId::new();
    let spec = Spec {
        resource: ResourceId::new(),
        operation: OperationId::new(),
        generation: 1,
        tenant: Tenant {
            id: tenant,
            slug: "acme".to_owned(),
            name: "Acme".to_owned(),
            plan: "growth".to_owned(),
            region: "eu".to_owned(),
            locale: "en".to_owned(),
            admin: Person::default(),
        },
        name: format!("tenant_{}", tenant.suffix()),
        claim: "c".to_owned(),
        settings: json!({}),
        inputs: Default::default(),
        note: None,
    };
    pool.pool.ready().await.unwrap().writer.run(work(tenant, "c", Vec::new())).await.unwrap();
    pool.scoped(tenant).insert("t", row(json!({ "id": "before" }))).await.unwrap();
    (files, pool, spec)
}

/// Files of an archive. After them comes what `end` says.
struct Archive {
    files: VecDeque<(&'static str, Vec<u8>)>,
    bytes: std::io::Cursor<Vec<u8>>,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    Whole,
    Broken,
    Never,
}

fn archive(end: End) -> Archive {
    let rows: String = (0..200).map(|n| format!("\"{n} {}\",{n}\n", "x".repeat(20_000))).collect();
    let text = format!("\"id\",\"n\"\n{rows}");
    Archive { files: VecDeque::from([("t.000001.csv", text.into_bytes())]), bytes: Default::default(), end }
}

#[async_trait]
impl Source for Archive {
    async fn next(&mut self) -> Result<Option<Arriving<'_>>, Failure> {
        let Some((path, bytes)) = self.files.pop_front() else {
            return match self.end {
                End::Whole => Ok(None),
                End::Broken => Err(broken(&std::io::ErrorKind::UnexpectedEof.into())),
                End::Never => std::future::pending().await,
            };
        };
        let size = bytes.len() as u64;
        self.bytes = std::io::Cursor::new(bytes);
        Ok(Some(Arriving { path: path.to_owned(), size, bytes: &mut self.bytes }))
    }
}

/// A sink that never accepts a file.
struct Stuck;

#[async_trait]
impl Sink for Stuck {
    async fn file(&mut self, _: &str, _: u64, _: Bytes<'_>) -> Result<(), Failure> {
        std::future::pending().await
    }
}

/// Waits until no connection reads or writes the file.
async fn at_rest(file: &Path) {
    let connection = client::open(file, None).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    let free = || {
        let busy = client::first(&connection, "PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        busy.unwrap() == Some(false)
    };
    let wait = async {
        while !free() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(END, wait).await.expect("the thread ends");
}

#[tokio::test]
async fn a_load_that_ends_early_changes_nothing() {
    let (files, pool, spec) = filled().await;
    let file = files.config().file;
    let rows = pool.scoped(spec.tenant.id);
    for end in [End::Broken, End::Never] {
        let mut source = archive(end);
        let load = sqlite::transfer::load(&file, None, &spec, &mut source);
        match tokio::time::timeout(Duration::from_millis(300), load).await {
            Ok(done) => assert_eq!(done.unwrap_err().code, "cut_off"),
            Err(_) => assert!(matches!(end, End::Never)),
        }
        at_rest(&file).await;
        assert_eq!(rows.list("t", 10, None).await.unwrap().rows.len(), 1);
        assert!(rows.get("t", "before").await.unwrap().is_some());
    }
    sqlite::transfer::load(&file, None, &spec, &mut archive(End::Whole)).await.unwrap();
    let content = sqlite::transfer::export(&file, &spec, &mut Nowhere).await.unwrap();
    assert_eq!(content.counts["t"], 200);
}

#[tokio::test]
async fn an_export_that_is_dropped_ends_its_transaction() {
    let (files, pool, spec) = filled().await;
    let file = files.config().file;
    sqlite::transfer::load(&file, None, &spec, &mut archive(End::Whole)).await.unwrap();
    let mut sink = Stuck;
    let export = sqlite::transfer::export(&file, &spec, &mut sink);
    assert!(tokio::time::timeout(Duration::from_millis(300), export).await.is_err());
    at_rest(&file).await;
    pool.scoped(spec.tenant.id).insert("t", row(json!({ "id": "after" }))).await.unwrap();
}

#[tokio::test]
async fn a_text_that_is_not_utf8_is_reported_without_its_value() {
    let (files, pool, spec) = filled().await;
    let file = files.config().file;
    let connection = client::open(&file, None).unwrap();
    client::batch(&connection, "UPDATE t SET id = CAST(x'736563726574ff' AS TEXT) WHERE id = 'before'")
        .unwrap();
    let failure = sqlite::transfer::export(&file, &spec, &mut Nowhere).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.class), ("bad_text", FailureClass::Fatal));
    assert!(failure.message.contains("`t`") && !failure.message.contains("secret"), "{failure}");
    let failure = pool.scoped(spec.tenant.id).list("t", 10, None).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.class), ("database", FailureClass::Fatal));
    assert!(!failure.message.contains("secret"), "{failure}");
}

#[tokio::test]
async fn values_that_are_too_big_are_rejected() {
    let (_files, pool, spec) = filled().await;
    let rows = pool.scoped(spec.tenant.id);
    let failure = rows.insert("t", row(json!({ "id": "x", "n": u64::MAX }))).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.class), ("too_big", FailureClass::Invalid));
    let long = "x".repeat(32 << 20);
    let stored = rows.insert("t", row(json!({ "id": long }))).await.unwrap();
    assert_eq!(stored["id"].as_str().map(str::len), Some(long.len()));
}
