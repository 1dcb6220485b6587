//! Sealing of events and audit records: numbers without gaps, a hash chain that reveals tampering, and heads
//! that only the key can sign.

use std::sync::Arc;

use serde_json::json;
use tenantry_model::id::{AuditId, EventId};
use tenantry_model::{TenantId, Timestamp, Write, columns};
use tenantry_store::keyring::{Keyring, MasterKey};
use tenantry_store::{Fault, Sealing, WriteBatch};
use tenantry_testkit::{Raw, TestDatabase, TestStore, on_both_stores};

pub(crate) struct Fixture {
    pub(crate) keyring: Arc<Keyring>,
    database: TestDatabase,
    _folder: tempfile::TempDir,
}

/// A keyring on the same kind of database as the registry.
pub(crate) async fn fixture(store: &TestStore) -> Fixture {
    let database = match store.database().folder() {
        Some(_) => TestDatabase::sqlite(),
        None => TestDatabase::postgres().await.unwrap(),
    };
    let folder = tempfile::tempdir().unwrap();
    let master = MasterKey::read_or_create(&folder.path().join("master.key")).unwrap();
    let keyring = Arc::new(Keyring::open(database.url(), master).await.unwrap());
    Fixture { keyring, database, _folder: folder }
}

impl Fixture {
    pub(crate) async fn sql(&self, sql: &str) {
        run_sql(self.database.url(), sql).await;
    }
}

pub(crate) fn audit_record(n: usize) -> Write {
    let row = columns! {
    "id": AuditId::new(), "tenant_id": TenantId::new(), "actor": "key_1", "action": "tenant.update",
    "target": format!("{n}"), "data": json!({ "z": 1, "a": { "n": n } }), "sealed": "v1.x", "at": Timestamp::now() };
    Write::insert("audit", row)
}

pub(crate) fn event(n: usize) -> Write {
    Write::insert(
        "events",
        columns! { "id": EventId::new(), "type": format!("t{n}"), "data": json!({}), "at": Timestamp::now() },
    )
}

/// Writes batches of audit records, each sealed with its own head.
pub(crate) async fn sealed(store: &TestStore, fixture: &Fixture, batches: usize, each: usize) {
    for _ in 0..batches {
        store.commit(WriteBatch::new((0..each).map(audit_record).collect())).await.unwrap();
        Sealing::start((**store).clone(), fixture.keyring.clone(), true).await.unwrap().stop().await;
    }
}

pub(crate) async fn tamper(store: &TestStore, sql: &str) {
    assert!(run_sql(store.database().url(), sql).await > 0, "{sql} changed nothing");
}

/// Runs statements on a database without the product's code; returns the number of changed rows.
pub(crate) async fn run_sql(url: &str, sql: &str) -> u64 {
    let db = Raw::connect(url).await;
    let changed = db.execute(sql).await;
    db.close().await;
    changed
}

on_both_stores! {
    async fn events_are_numbered_in_order_under_load(store: TestStore) {
        let fixture = fixture(&store).await;
        let sealing = Sealing::start((*store).clone(), fixture.keyring.clone(), true).await.unwrap();
        let mut head = sealing.head();
        let writers = (0..8).map(|w| {
            let store = (*store).clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    store.commit(WriteBatch::new(vec![event(w * 100 + n), audit_record(n)])).await.unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        // A commit notifies the head; no polling is needed.
        head.wait_for(|head| *head == 400).await.unwrap();
        let rows = store.events_after(0, 1_000).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.seq.unwrap()).collect::<Vec<_>>(), (1..=400).collect::<Vec<i64>>());
        for w in 0..8 {
            let own = rows.iter().filter_map(|row| row.kind[1..].parse::<usize>().ok()).filter(|n| n / 100 == w);
            assert!(own.is_sorted(), "the events of one writer keep their order");
        }
        let page = store.events_after(390, 5).await.unwrap();
        assert_eq!(page.iter().map(|row| row.seq.unwrap()).collect::<Vec<_>>(), [391, 392, 393, 394, 395]);
        sealing.stop().await;
        let report = store.audit_verify(&fixture.keyring).await.unwrap();
        assert_eq!((report.verified, report.unsealed, report.broken), (400, 0, None));
    }

    async fn unsealed_records_are_sealed_at_the_next_start(store: TestStore) {
        let fixture = fixture(&store).await;
        sealed(&store, &fixture, 1, 3).await;
        // More than one batch while no sealer runs.
        for _ in 0..3 {
            store.commit(WriteBatch::new((0..500).flat_map(|n| [audit_record(n), event(n)]).collect())).await.unwrap();
        }
        let report = store.audit_verify(&fixture.keyring).await.unwrap();
        assert_eq!((report.verified, report.heads, report.unsealed, report.broken), (3, 1, 1_500, None));
        let sealing = Sealing::start((*store).clone(), fixture.keyring.clone(), true).await.unwrap();
        sealing.head().wait_for(|head| *head == 1_500).await.unwrap();
        sealing.stop().await;
        let report = store.audit_verify(&fixture.keyring).await.unwrap();
        assert_eq!((report.verified, report.unsealed, report.broken), (1_503, 0, None));
        assert_eq!(report.heads, 3);
    }

    async fn an_empty_audit_trail_is_valid(store: TestStore) {
        let report = store.audit_verify(&fixture(&store).await.keyring).await.unwrap();
        assert_eq!((report.verified, report.heads, report.unsealed, report.broken), (0, 0, 0, None));
    }

    async fn every_tampering_is_named(store: TestStore) {
        let fixture = fixture(&store).await;
        sealed(&store, &fixture, 4, 5).await;
        let report = store.audit_verify(&fixture.keyring).await.unwrap();
        assert_eq!((report.verified, report.heads, report.broken), (20, 4, None));

        let broken = || async {
            let broken = store.audit_verify(&fixture.keyring).await.unwrap().broken;
            broken.map(|broken| (broken.seq, broken.fault))
        };
        // Each change is reverted before the next.
        for (what, tampering, undo, found) in [
            ("edited", "UPDATE audit SET actor = 'key_2' WHERE seq = 7", "UPDATE audit SET actor = 'key_1' WHERE seq = 7", (7, Fault::Changed)),
            ("edited ciphertext", "UPDATE audit SET sealed = 'v1.y' WHERE seq = 20", "UPDATE audit SET sealed = 'v1.x' WHERE seq = 20", (20, Fault::Changed)),
            ("deleted", "UPDATE audit SET seq = 1000 + seq WHERE seq = 9", "UPDATE audit SET seq = 9 WHERE seq = 1009", (9, Fault::Missing)),
            ("first deleted", "UPDATE audit SET seq = 1000 + seq WHERE seq = 1", "UPDATE audit SET seq = 1 WHERE seq = 1001", (1, Fault::Missing)),
            ("tail deleted", "UPDATE audit SET seq = -seq WHERE seq > 17", "UPDATE audit SET seq = -seq WHERE seq < 0", (18, Fault::Missing)),
            ("moved to the end", "UPDATE audit SET seq = 21 WHERE seq = 3", "UPDATE audit SET seq = 3 WHERE seq = 21", (3, Fault::Missing)),
            ("head deleted", "UPDATE audit_heads SET seq = -20 WHERE seq = 20", "UPDATE audit_heads SET seq = 20 WHERE seq = -20", (16, Fault::Unsigned)),
            ("head forged", "UPDATE audit_heads SET signature = 'AAAA' WHERE seq = 10", "", (10, Fault::Forged)),
        ] {
            tamper(&store, tampering).await;
            assert_eq!(broken().await, Some(found), "{what}");
            if !undo.is_empty() {
                tamper(&store, undo).await;
                assert_eq!(broken().await, None, "{what}, undone");
            }
        }
    }

    async fn exchanged_records_are_detected(store: TestStore) {
        let fixture = fixture(&store).await;
        sealed(&store, &fixture, 1, 6).await;
        tamper(&store, "UPDATE audit SET seq = -seq WHERE seq IN (3, 4)").await;
        tamper(&store, "UPDATE audit SET seq = 7 + seq WHERE seq < 0").await;
        let broken = store.audit_verify(&fixture.keyring).await.unwrap().broken.unwrap();
        assert_eq!((broken.seq, broken.fault), (3, Fault::Changed));
        assert!(broken.id.is_some());
    }

    async fn a_record_appended_with_another_key_is_detected(store: TestStore) {
        let fixture = fixture(&store).await;
        sealed(&store, &fixture, 2, 3).await;
        // Numbered and chained correctly by a sealer with another key; its head is deleted later.
        let other = self::fixture(&store).await;
        sealed(&store, &other, 1, 1).await;
                let broken = store.audit_verify(&fixture.keyring).await.unwrap().broken.unwrap();
        assert_eq!((broken.seq, broken.fault), (7, Fault::Forged));
        tamper(&store, "DELETE FROM audit_heads WHERE seq = 7").await;
        let report = store.audit_verify(&fixture.keyring).await.unwrap();
        let broken = report.broken.unwrap();
        assert_eq!((broken.seq, broken.fault, report.verified), (7, Fault::Unsigned, 6));
    }

    async fn a_rewritten_chain_is_detected(store: TestStore) {
        let fixture = fixture(&store).await;
        sealed(&store, &fixture, 3, 2).await;
        // Edit record 3 and recompute all hashes from there on, which needs no key.
        tamper(&store, "UPDATE audit SET actor = 'key_2' WHERE seq = 3").await;
        tamper(&store, "UPDATE audit_heads SET seq = seq + 100").await;
        tamper(&store, "UPDATE audit SET seq = NULL, hash = NULL WHERE seq >= 3").await;
        Sealing::start((*store).clone(), self::fixture(&store).await.keyring.clone(), true).await.unwrap().stop().await;
        tamper(&store, "DELETE FROM audit_heads WHERE seq < 100").await;
        tamper(&store, "UPDATE audit_heads SET seq = seq - 100").await;
        let report = store.audit_verify(&fixture.keyring).await.unwrap();
        let broken = report.broken.unwrap();
        assert_eq!((broken.seq, broken.fault, report.verified), (3, Fault::Rewritten, 2));
    }
}
