//! A standby takes over that lacked what was written last. What the registry calls done may not be there then: it is named,
//! and made again, by the process that had made it and by any other.

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
async fn what_a_promoted_standby_lacks_is_named_and_made_again() {
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
            // Its fence has gone with the rest, and says so.
            let denied = provider.fence().unwrap().denies(&order(kept, Some(Grade::Blocked), 5)).await;
            assert_eq!(denied.unwrap(), None, "{model:?}");
        }
        fence(place, kept, Some(Grade::Blocked), 6).await;
        assert!(log_in(place, kept, &made.outputs).await.is_err(), "{model:?}");

        let again = ensured(place, lost).await;
        assert!(is_healthy(place, &*place.provider, lost).await, "{model:?}");
        assert_eq!(rows.list("tasks", 10, None).await.unwrap().rows.len(), 3, "{model:?}: the seed");
        // By the password that was handed out anew.
        log_in(place, lost, &again.outputs).await.unwrap();
    }
}

/// The standby has nothing but the empty main databases. Whatever a process knew to be there has to be found missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_forgets_what_it_had_made_for_all() {
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
