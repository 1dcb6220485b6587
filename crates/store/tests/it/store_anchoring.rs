//! The anchor of the audit chain: a chain that lost its end is named until an operator accepts it, and neither a crash, an
//! outage of the keyring nor several sealers look like a cut.

use tenantry_store::{AuditReport, Fault, Sealing, Store, WriteBatch};
use tenantry_testkit::store::count_rows;
use tenantry_testkit::{TestStore, on_both_stores};

use crate::store_sealing::{Fixture, audit_record, event, fixture, run_sql, sealed, tamper};

/// Deletes everything after the record with this number: records and signed heads.
async fn cut_after(store: &TestStore, seq: i64) {
    tamper(store, &format!("DELETE FROM audit_heads WHERE seq > {seq}")).await;
    tamper(store, &format!("DELETE FROM audit WHERE seq > {seq}")).await;
}

async fn verify(store: &Store, fixture: &Fixture) -> AuditReport {
    store.audit_verify(&fixture.keyring).await.unwrap()
}

/// The cut that makes the verification fail: number of the first missing record.
async fn cut(store: &Store, fixture: &Fixture) -> Option<i64> {
    let broken = verify(store, fixture).await.broken?;
    assert_eq!(broken.fault, Fault::Cut);
    Some(broken.seq)
}

/// Seals all rows without a number, as a process does at its start.
async fn seal(store: &Store, fixture: &Fixture) {
    Sealing::start(store.clone(), fixture.keyring.clone(), true).await.unwrap().stop().await;
}

on_both_stores! {
    async fn a_cut_end_is_named_until_it_is_accepted(store: TestStore) {
        let fixture = fixture(&store).await;
        sealed(&store, &fixture, 4, 5).await;
        assert_eq!(verify(&store, &fixture).await.anchored, Some(20));
        assert_eq!(cut(&store, &fixture).await, None);
        cut_after(&store, 15).await;
        let report = verify(&store, &fixture).await;
        assert_eq!((report.verified, report.heads, report.anchored), (15, 3, Some(20)));
        assert_eq!(cut(&store, &fixture).await, Some(16));
        // The chain goes on without the records: the cut stays named.
        sealed(&store, &fixture, 2, 4).await;
        let report = verify(&store, &fixture).await;
        assert_eq!((report.heads, report.anchored), (5, Some(23)));
        assert_eq!(cut(&store, &fixture).await, Some(16));
        assert_eq!(store.accept_cuts(&fixture.keyring, "restored the backup of Monday").await.unwrap().len(), 1);
        let report = verify(&store, &fixture).await;
        assert_eq!((report.verified, report.broken), (23, None));
        let accepted = report.cuts.iter().map(|cut| (cut.anchored_seq, cut.found_seq, cut.accepted_reason.as_deref()));
        assert_eq!(accepted.collect::<Vec<_>>(), [(20, 15, Some("restored the backup of Monday"))]);
        // Another cut is not accepted with the first.
        cut_after(&store, 19).await;
        assert_eq!(cut(&store, &fixture).await, Some(20));
        assert_eq!(store.accept_cuts(&fixture.keyring, "again").await.unwrap().len(), 1);
        assert_eq!(cut(&store, &fixture).await, None);
        assert_eq!(store.accept_cuts(&fixture.keyring, "none left").await.unwrap(), []);
    }

    async fn a_trail_that_is_gone_altogether_is_a_cut(store: TestStore) {
        let fixture = fixture(&store).await;
        sealed(&store, &fixture, 2, 3).await;
        cut_after(&store, 0).await;
        assert_eq!(cut(&store, &fixture).await, Some(1));
        seal(&store, &fixture).await;
        assert_eq!(cut(&store, &fixture).await, Some(1));
    }

    async fn records_that_come_back_are_no_cut(store: TestStore) {
        let fixture = fixture(&store).await;
        sealed(&store, &fixture, 3, 2).await;
        let url = store.database().url();
        run_sql(url, "CREATE TABLE kept AS SELECT * FROM audit WHERE seq > 4").await;
        run_sql(url, "CREATE TABLE kept_heads AS SELECT * FROM audit_heads WHERE seq > 4").await;
        cut_after(&store, 4).await;
        seal(&store, &fixture).await;
        assert_eq!(cut(&store, &fixture).await, Some(5));
        tamper(&store, "INSERT INTO audit SELECT * FROM kept").await;
        tamper(&store, "INSERT INTO audit_heads SELECT * FROM kept_heads").await;
        assert_eq!(cut(&store, &fixture).await, None);
        sealed(&store, &fixture, 1, 2).await;
        let report = verify(&store, &fixture).await;
        assert_eq!((report.verified, report.anchored, report.broken), (8, Some(8), None));
        // The same records again.
        cut_after(&store, 4).await;
        assert_eq!(cut(&store, &fixture).await, Some(5));
    }

    async fn a_crash_between_anchor_and_commit_is_no_cut_and_hides_none(store: TestStore) {
        let fixture = fixture(&store).await;
        sealed(&store, &fixture, 1, 3).await;
        // The commit that seals the batch fails, after the anchor was moved.
        let url = store.database().url();
        run_sql(url, "ALTER TABLE audit_heads RENAME TO away").await;
        store.commit(WriteBatch::new((0..4).map(audit_record).collect())).await.unwrap();
        seal(&store, &fixture).await;
        run_sql(url, "ALTER TABLE away RENAME TO audit_heads").await;
        let report = verify(&store, &fixture).await;
        assert_eq!((report.verified, report.unsealed, report.anchored, report.broken), (3, 4, Some(7), None));
        // One of the records that were about to be sealed is gone.
        run_sql(url, "CREATE TABLE kept AS SELECT * FROM audit WHERE seq IS NULL ORDER BY id LIMIT 1").await;
        tamper(&store, "DELETE FROM audit WHERE id IN (SELECT id FROM kept)").await;
        assert_eq!(cut(&store, &fixture).await, Some(4));
        tamper(&store, "INSERT INTO audit SELECT * FROM kept").await;
        assert_eq!(cut(&store, &fixture).await, None);
        // The next process seals them, and later ones after them.
        store.commit(WriteBatch::new(vec![audit_record(9)])).await.unwrap();
        seal(&store, &fixture).await;
        let report = verify(&store, &fixture).await;
        assert_eq!((report.verified, report.heads, report.anchored), (8, 3, Some(8)));
        assert_eq!((report.unsealed, report.cuts.len(), report.broken), (0, 0, None));
    }

    async fn a_chain_without_an_anchor_gets_one(store: TestStore) {
        let fixture = fixture(&store).await;
        sealed(&store, &fixture, 2, 3).await;
        // An earlier release sealed without anchors.
        fixture.sql("DELETE FROM audit_anchor").await;
        let report = verify(&store, &fixture).await;
        assert_eq!((report.anchored, report.broken), (None, None));
        seal(&store, &fixture).await;
        assert_eq!(verify(&store, &fixture).await.anchored, Some(6));
        cut_after(&store, 3).await;
        assert_eq!(cut(&store, &fixture).await, Some(4));
    }

    async fn events_are_numbered_while_the_keyring_is_down(store: TestStore) {
        let fixture = fixture(&store).await;
        sealed(&store, &fixture, 1, 1).await;
        fixture.sql("ALTER TABLE audit_anchor RENAME TO away").await;
        store.commit(WriteBatch::new(vec![event(1), audit_record(1)])).await.unwrap();
        let sealing = Sealing::start((*store).clone(), fixture.keyring.clone(), true).await.unwrap();
        sealing.head().wait_for(|head| *head == 1).await.unwrap();
        assert_eq!(store.events_after(0, 10).await.unwrap().len(), 1);
        assert_eq!(count_rows(store.database().url(), "audit WHERE seq IS NULL").await, 1);
        fixture.sql("ALTER TABLE away RENAME TO audit_anchor").await;
        sealing.stop().await;
        let report = verify(&store, &fixture).await;
        assert_eq!((report.verified, report.unsealed, report.anchored, report.broken), (2, 0, Some(2), None));
    }

    async fn several_sealers_find_no_cut(store: TestStore) {
        let fixture = fixture(&store).await;
        let first = Sealing::start((*store).clone(), fixture.keyring.clone(), true).await.unwrap();
        let second = Sealing::start(store.open_again().await, fixture.keyring.clone(), true).await.unwrap();
        for round in 0..40 {
            store.commit(WriteBatch::new((0..5).map(audit_record).collect())).await.unwrap();
            // Both seal the same records at once.
            first.notice_unsealed();
            second.notice_unsealed();
            if round % 10 == 0 {
                assert_eq!(verify(&store, &fixture).await.broken, None);
            }
        }
        first.stop().await;
        second.stop().await;
        seal(&store, &fixture).await;
        let report = verify(&store, &fixture).await;
        assert_eq!((report.verified, report.unsealed, report.anchored), (200, 0, Some(200)));
        assert_eq!((report.cuts.len(), report.broken), (0, None));
    }
}
