//! Capacity slots under concurrent requests: no slot is reserved twice or lost, and an expired reservation
//! does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tenantry_control::capacity::{Capacity, RESERVED_FOR, Slot, Slots};
use tenantry_model::{TenantId, Timestamp};
use tenantry_store::{Rejected, Store, WriteBatch};
use tenantry_testkit::{TestStore, on_both_stores};

const ROOM: u32 = 100;

fn capacity() -> Capacity {
    let kinds = BTreeMap::from([("database".to_owned(), ROOM), ("bucket".to_owned(), 2 * ROOM)]);
    BTreeMap::from([("eu".to_owned(), kinds)])
}

fn needed() -> BTreeMap<String, u32> {
    // Identities have no capacity limit.
    BTreeMap::from([("database".to_owned(), 1), ("bucket".to_owned(), 2), ("identity".to_owned(), 1)])
}

/// Reserves slots as a step does, and retries after a conflict with another request.
async fn reserve(slots: &Slots, store: &Store, tenant: TenantId, now: Timestamp) -> Option<Vec<Slot>> {
    loop {
        let (taken, writes) = match slots.reserve(tenant, "eu", &needed(), now).await {
            Ok(found) => found,
            Err(failure) => {
                assert_eq!(failure.code.as_str(), "insufficient_resources");
                assert!(failure.message.starts_with("Insufficient resources: "), "{failure:?}");
                return None;
            }
        };
        match store.commit(WriteBatch::new(writes)).await {
            Ok(()) => return Some(taken),
            Err(Rejected::Conflict { .. } | Rejected::Stale { .. }) => {}
            Err(why) => panic!("{why}"),
        }
    }
}

/// Reserves slots for `asking` tenants concurrently through three processes. Returns the slots of each
/// successful tenant.
async fn race(store: &Store, asking: usize, now: Timestamp) -> BTreeMap<TenantId, Vec<Slot>> {
    let processes: Vec<_> = (0..3).map(|_| Slots::new(store.clone(), capacity())).collect();
    let asked = (0..asking).map(|n| {
        let slots = processes[n % processes.len()].clone();
        async move {
            let tenant = TenantId::new();
            Some((tenant, reserve(&slots, store, tenant, now).await?))
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

fn distinct(got: &BTreeMap<TenantId, Vec<Slot>>) -> usize {
    got.values().flatten().collect::<BTreeSet<_>>().len()
}

on_both_stores! {
    async fn holds_count_before_reservations_are_written(store: TestStore) {
        let now = Timestamp::now();
        let needed = BTreeMap::from([("database".to_owned(), 1)]);
        let room = BTreeMap::from([("eu".to_owned(), BTreeMap::from([("database".to_owned(), 2)]))]);
        let slots = Slots::new((*store).clone(), room);
        let [first, second, late] = [(); 3].map(|()| TenantId::new());
        let claims = [
            slots.claim(first, "eu", &needed, now).await.unwrap(),
            slots.claim(second, "eu", &needed, now).await.unwrap(),
        ];
        // Nothing is written yet, but the holds leave no free slot.
        for later in [0, 1, 2] {
            let refused = slots.claim(late, "eu", &needed, now + Duration::from_secs(later)).await.err().unwrap();
            assert_eq!(refused.code.as_str(), "insufficient_resources");
        }
        let (found, writes) = slots.reserve(first, "eu", &needed, now).await.unwrap();
        assert_eq!(found, slots.reserve(first, "eu", &needed, now).await.unwrap().0, "the held slot is reserved");
        store.commit(WriteBatch::new(writes)).await.unwrap();
        // One reservation is written and the other hold is dropped, so one slot is free.
        drop(claims);
        let later = now + Duration::from_secs(3);
        let _claim = slots.claim(late, "eu", &needed, later).await.unwrap();
        let (taken, _) = slots.reserve(late, "eu", &needed, later).await.unwrap();
        assert_ne!(taken, found);
        assert!(slots.claim(second, "eu", &needed, later + Duration::from_secs(1)).await.is_err());
    }

    async fn a_thousand_requests_share_a_hundred_slots(store: TestStore) {
        let now = Timestamp::now();
        let got = race(&store, 1_000, now).await;
        assert_eq!((got.len(), distinct(&got)), (100, 300));
        // Half of the slots are released; only those are free.
        let slots = Slots::new((*store).clone(), capacity());
        for tenant in got.keys().take(50) {
            let back = slots.release(*tenant).await.unwrap();
            assert_eq!(back.len(), 3);
            store.commit(WriteBatch::new(back)).await.unwrap();
        }
        let later = now + Duration::from_secs(1);
        assert_eq!(race(&store, 200, later).await.len(), 50);
        assert_eq!(
            slots.missing("eu", &needed(), later).await.unwrap(),
            ["bucket in eu", "database in eu"]
        );
    }

    async fn an_expired_reservation_frees_its_slot(store: TestStore) {
        let now = Timestamp::now();
        let first = race(&store, 100, now).await;
        let (kept, lost): (Vec<_>, Vec<_>) = first.iter().enumerate().partition(|(n, _)| n % 2 == 0);
        for (_, (tenant, slots)) in &kept {
            store.commit(WriteBatch::new(Slots::keep(**tenant, slots))).await.unwrap();
        }
        let after = now + RESERVED_FOR;
        let second = race(&store, 300, after).await;
        assert_eq!(second.len(), lost.len(), "slots in use stay reserved");
        for (_, (tenant, slots)) in &lost {
            let kept = store.commit(WriteBatch::new(Slots::keep(**tenant, slots))).await;
            assert!(matches!(kept, Err(Rejected::Stale { table: "slots", .. })), "{kept:?}");
            let slots = Slots::new((*store).clone(), capacity());
            assert!(slots.release(**tenant).await.unwrap().is_empty(), "the tenant has no slot any more");
        }
    }

    async fn kinds_without_a_limit_need_no_slot(store: TestStore) {
        let slots = Slots::new((*store).clone(), capacity());
        let (taken, writes) = slots.reserve(TenantId::new(), "us", &needed(), Timestamp::now()).await.unwrap();
        assert!(taken.is_empty() && writes.is_empty());
    }
}
