//! Fail-over to a standby that lacks the latest commits: what the registry lists as complete may be missing.
//! It is reported and created again, by the process that had created it and by any other.

use tenantry_model::suspension::SuspensionMode;
use tenantry_provider::{Observed, Provider, Spec};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::own_postgres::OwnPostgres;

use crate::contract::Environment as _;
use crate::postgres::{Fixture, MODELS, Model, ensured, log_in, make};
use crate::postgres_fences::{fence, order};
use crate::world::spec;

/// No commit waits for the standby, so it can be behind.
const ASYNCHRONOUS: [&str; 2] = ["synchronous_commit=off", "max_connections=60"];

async fn fixture(server: &OwnPostgres, model: Model) -> Fixture {
    Fixture::on(TestDatabase::on(&server.url()).await, model, |_| {})
}

async fn is_healthy(fixture: &Fixture, provider: &dyn Provider, spec: &Spec) -> bool {
    provider.observe(&fixture.world.context(), spec).await.unwrap().is_healthy()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_missing_after_a_failover_are_reported_and_recreated() {
    let Some(mut primary) = OwnPostgres::start(&ASYNCHRONOUS).await else { return };
    let mut standby = primary.standby().await;
    let mut fleets = Vec::new();
    for model in MODELS {
        let fixture = fixture(&primary, model).await;
        let kept = make(&fixture).await;
        fleets.push((fixture, kept));
    }
    standby.cut_off(&primary).await;
    let mut lost = Vec::new();
    for (fixture, (kept, made)) in &fleets {
        lost.push(make(fixture).await);
        fence(fixture, kept, Some(SuspensionMode::Blocked), 5).await;
        assert!(log_in(fixture, kept, &made.outputs).await.is_err());
    }
    standby.take_over(&mut primary).await;

    for ((fixture, (kept, made)), (lost, lost_made)) in fleets.iter().zip(&lost) {
        let (model, context) = (fixture.model, fixture.world.context());
        let rows = fixture.provider.data().unwrap().scoped(lost.tenant.id);
        let served = rows.list("tasks", 10, None).await;
        assert!(served.is_err() || model == Model::Pool && served.unwrap().rows.is_empty(), "{model:?}");
        assert!(log_in(fixture, lost, &lost_made.outputs).await.is_err(), "{model:?}");
        for provider in [&*fixture.provider, &*fixture.another()] {
            assert_eq!(provider.observe(&context, lost).await.unwrap(), Observed::Absent, "{model:?}");
            let seen = provider.observe(&context, kept).await.unwrap();
            assert!(seen.is_healthy(), "{model:?}: {seen:?}");
            // Its fence is missing as well, and reported so.
            let denied =
                provider.fence().unwrap().denies(&order(kept, Some(SuspensionMode::Blocked), 5)).await;
            assert_eq!(denied.unwrap(), None, "{model:?}");
        }
        fence(fixture, kept, Some(SuspensionMode::Blocked), 6).await;
        assert!(log_in(fixture, kept, &made.outputs).await.is_err(), "{model:?}");

        let again = ensured(fixture, lost).await;
        assert!(is_healthy(fixture, &*fixture.provider, lost).await, "{model:?}");
        assert_eq!(rows.list("tasks", 10, None).await.unwrap().rows.len(), 3, "{model:?}: the seed");
        // With the password that was handed out again.
        log_in(fixture, lost, &again.outputs).await.unwrap();
    }
}

/// The standby has only the empty main databases: a process must not rely on what it had created.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_shared_objects_are_recreated_after_a_failover() {
    let Some(mut primary) = OwnPostgres::start(&ASYNCHRONOUS).await else { return };
    let mut standby = primary.standby().await;
    let mut fleets = Vec::new();
    for model in MODELS {
        fleets.push(fixture(&primary, model).await);
    }
    standby.cut_off(&primary).await;
    let mut lost = Vec::new();
    for fixture in &fleets {
        lost.push(make(fixture).await.0);
    }
    standby.take_over(&mut primary).await;
    for (fixture, lost) in fleets.iter().zip(&lost) {
        for spec in [&spec(fixture.settings()), lost] {
            ensured(fixture, spec).await;
            assert!(is_healthy(fixture, &*fixture.provider, spec).await, "{:?}", fixture.model);
        }
        fixture.provider.probe().await.unwrap();
    }
}
