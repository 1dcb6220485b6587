//! Places: however many ask at once, none is given twice, none is lost, and a reservation that has run out is no claim.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tenantry_control::capacity::{Capacity, Place, Places, RESERVED_FOR};
use tenantry_model::{TenantId, Timestamp};
use tenantry_store::{Rejected, Store, Unit};
use tenantry_testkit::{TestStore, on_both_stores};

const ROOM: u32 = 100;

fn capacity() -> Capacity {
    let kinds = BTreeMap::from([("database".to_owned(), ROOM), ("bucket".to_owned(), 2 * ROOM)]);
    BTreeMap::from([("eu".to_owned(), kinds)])
}

fn needed() -> BTreeMap<String, u32> {
    // Identities have no limit.
    BTreeMap::from([("database".to_owned(), 1), ("bucket".to_owned(), 2), ("identity".to_owned(), 1)])
}

/// Reserves as a step does: what is refused because somebody was faster is tried again.
async fn reserve(places: &Places, store: &Store, tenant: TenantId, now: Timestamp) -> Option<Vec<Place>> {
    loop {
        let (taken, writes) = match places.reserve(tenant, "eu", &needed(), now).await {
            Ok(found) => found,
            Err(failure) => {
                assert_eq!(failure.code, "insufficient_resources");
                assert!(failure.message.starts_with("Insufficient resources: "), "S4.50: {failure:?}");
                return None;
            }
        };
        match store.commit(Unit::new(writes)).await {
            Ok(()) => return Some(taken),
            Err(Rejected::Conflict { .. } | Rejected::Stale { .. }) => {}
            Err(why) => panic!("{why}"),
        }
    }
}

/// Asks for so many tenants at once, through several processes' eyes; who got what.
async fn race(store: &Store, asking: usize, now: Timestamp) -> BTreeMap<TenantId, Vec<Place>> {
    let processes: Vec<_> = (0..3).map(|_| Places::new(store.clone(), capacity())).collect();
    let asked = (0..asking).map(|n| {
        let places = processes[n % processes.len()].clone();
        async move {
            let tenant = TenantId::new();
            Some((tenant, reserve(&places, store, tenant, now).await?))
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

fn distinct(got: &BTreeMap<TenantId, Vec<Place>>) -> usize {
    got.values().flatten().collect::<BTreeSet<_>>().len()
}

on_both_stores! {
    async fn who_comes_after_the_last_claim_is_refused(store: TestStore) {
        let now = Timestamp::now();
        let needed = BTreeMap::from([("database".to_owned(), 1)]);
        let room = BTreeMap::from([("eu".to_owned(), BTreeMap::from([("database".to_owned(), 2)]))]);
        let places = Places::new((*store).clone(), room);
        let [first, second, late] = [(); 3].map(|()| TenantId::new());
        let claims = [
            places.claim(first, "eu", &needed, now).await.unwrap(),
            places.claim(second, "eu", &needed, now).await.unwrap(),
        ];
        // Nothing is written yet, and nothing is left all the same, however often one looks.
        for later in [0, 1, 2] {
            let refused = places.claim(late, "eu", &needed, now + Duration::from_secs(later)).await.err().unwrap();
            assert_eq!(refused.code, "insufficient_resources");
        }
        let (found, writes) = places.reserve(first, "eu", &needed, now).await.unwrap();
        assert_eq!(found, places.reserve(first, "eu", &needed, now).await.unwrap().0, "what was claimed");
        store.commit(Unit::new(writes)).await.unwrap();
        // One is written, the other given up: one is free.
        drop(claims);
        let later = now + Duration::from_secs(3);
        let _claim = places.claim(late, "eu", &needed, later).await.unwrap();
        let (taken, _) = places.reserve(late, "eu", &needed, later).await.unwrap();
        assert_ne!(taken, found);
        assert!(places.claim(second, "eu", &needed, later + Duration::from_secs(1)).await.is_err());
    }

    async fn a_thousand_race_for_a_hundred_places(store: TestStore) {
        let now = Timestamp::now();
        let got = race(&store, 1_000, now).await;
        assert_eq!((got.len(), distinct(&got)), (100, 300));
        // Half of them are given back, and nothing but that is free.
        let places = Places::new((*store).clone(), capacity());
        for tenant in got.keys().take(50) {
            let back = places.give_back(*tenant).await.unwrap();
            assert_eq!(back.len(), 3);
            store.commit(Unit::new(back)).await.unwrap();
        }
        let later = now + Duration::from_secs(1);
        assert_eq!(race(&store, 200, later).await.len(), 50);
        assert_eq!(
            places.missing("eu", &needed(), later).await.unwrap(),
            ["bucket in eu", "database in eu"]
        );
    }

    async fn a_reservation_that_has_run_out_is_no_claim(store: TestStore) {
        let now = Timestamp::now();
        let first = race(&store, 100, now).await;
        let (kept, lost): (Vec<_>, Vec<_>) = first.iter().enumerate().partition(|(n, _)| n % 2 == 0);
        for (_, (tenant, places)) in &kept {
            store.commit(Unit::new(Places::keep(**tenant, places))).await.unwrap();
        }
        let after = now + RESERVED_FOR;
        let second = race(&store, 300, after).await;
        assert_eq!(second.len(), lost.len(), "what is in use stays");
        for (_, (tenant, places)) in &lost {
            let kept = store.commit(Unit::new(Places::keep(**tenant, places))).await;
            assert!(matches!(kept, Err(Rejected::Stale { table: "places", .. })), "{kept:?}");
            let ours = Places::new((*store).clone(), capacity());
            assert!(ours.give_back(**tenant).await.unwrap().is_empty(), "nothing of it is theirs any more");
        }
    }

    async fn what_has_no_limit_is_not_counted(store: TestStore) {
        let places = Places::new((*store).clone(), capacity());
        let (taken, writes) = places.reserve(TenantId::new(), "us", &needed(), Timestamp::now()).await.unwrap();
        assert!(taken.is_empty() && writes.is_empty());
    }
}
