//! Fail-over to a standby that lacks the latest commits: what the registry lists as complete may be missing.
//! It is reported and created again, by the process that had created it and by any other.

use tenantry_model::suspension::Grade;
use tenantry_provider::{Observed, Provider, Spec};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::own_postgres::OwnPostgres;

use crate::contract::Environment as _;
use crate::postgres::{MODELS, Model, Place, ensured, log_in, make};
use crate::postgres_fences::{fence, order};
use crate::world::spec;

/// No commit waits for the standby, so it can be behind.
const ASYNCHRONOUS: [&str; 2] = ["synchronous_commit=off", "max_connections=60"];

async fn place(server: &OwnPostgres, model: Model) -> Place {
    Place::on(TestDatabase::on(&server.url()).await, model, |_| {})
}

async fn is_healthy(place: &Place, provider: &dyn Provider, spec: &Spec) -> bool {
    provider.observe(&place.world.context(), spec).await.unwrap().is_healthy()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_missing_after_a_failover_are_reported_and_recreated() {
    let Some(mut primary) = OwnPostgres::start(&ASYNCHRONOUS).await else { return };
    let mut standby = primary.standby().await;
    let mut fleets = Vec::new();
    for model in MODELS {
        let place = place(&primary, model).await;
        let kept = make(&place).await;
        fleets.push((place, kept));
    }
    standby.cut_off(&primary).await;
    let mut lost = Vec::new();
    for (place, (kept, made)) in &fleets {
        lost.push(make(place).await);
        fence(place, kept, Some(Grade::Blocked), 5).await;
        assert!(log_in(place, kept, &made.outputs).await.is_err());
    }
    standby.take_over(&mut primary).await;

    for ((place, (kept, made)), (lost, lost_made)) in fleets.iter().zip(&lost) {
        let (model, context) = (place.model, place.world.context());
        let rows = place.provider.data().unwrap().scoped(lost.tenant.id);
        let served = rows.list("tasks", 10, None).await;
        assert!(served.is_err() || model == Model::Pool && served.unwrap().rows.is_empty(), "{model:?}");
        assert!(log_in(place, lost, &lost_made.outputs).await.is_err(), "{model:?}");
        for provider in [&*place.provider, &*place.another()] {
            assert_eq!(provider.observe(&context, lost).await.unwrap(), Observed::Absent, "{model:?}");
            let seen = provider.observe(&context, kept).await.unwrap();
            assert!(seen.is_healthy(), "{model:?}: {seen:?}");
            // Its fence is missing as well, and reported so.
            let denied = provider.fence().unwrap().denies(&order(kept, Some(Grade::Blocked), 5)).await;
            assert_eq!(denied.unwrap(), None, "{model:?}");
        }
        fence(place, kept, Some(Grade::Blocked), 6).await;
        assert!(log_in(place, kept, &made.outputs).await.is_err(), "{model:?}");

        let again = ensured(place, lost).await;
        assert!(is_healthy(place, &*place.provider, lost).await, "{model:?}");
        assert_eq!(rows.list("tasks", 10, None).await.unwrap().rows.len(), 3, "{model:?}: the seed");
        // With the password that was handed out again.
        log_in(place, lost, &again.outputs).await.unwrap();
    }
}

/// The standby has only the empty main databases: a process must not rely on what it had created.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_shared_objects_are_recreated_after_a_failover() {
    let Some(mut primary) = OwnPostgres::start(&ASYNCHRONOUS).await else { return };
    let mut standby = primary.standby().await;
    let mut fleets = Vec::new();
    for model in MODELS {
        fleets.push(place(&primary, model).await);
    }
    standby.cut_off(&primary).await;
    let mut lost = Vec::new();
    for place in &fleets {
        lost.push(make(place).await.0);
    }
    standby.take_over(&mut primary).await;
    for (place, lost) in fleets.iter().zip(&lost) {
        for spec in [&spec(place.settings()), lost] {
            ensured(place, spec).await;
            assert!(is_healthy(place, &*place.provider, spec).await, "{:?}", place.model);
        }
        place.provider.probe().await.unwrap();
    }
}
