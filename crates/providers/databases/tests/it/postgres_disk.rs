//! A full disk of PostgreSQL: operations wait, nothing stays half done, and they continue when space is free.
//! If the log has no space either, the server crashes and cannot start before there is some.

use tenantry_model::Failure;
use tenantry_model::FailureClass::Retryable;
use tenantry_provider::Spec;
use tenantry_testkit::TestDatabase;
use tenantry_testkit::own_postgres::OwnPostgres;
use tenantry_testkit::small_disk::SmallDisk;

use crate::contract::Environment as _;
use crate::postgres::{Fixture, MODELS, ensured, log_in, make};
use crate::world::spec;

const MEGABYTES: u32 = 256;
const SETTINGS: [&str; 3] = ["max_connections=60", "min_wal_size=32MB", "max_wal_size=48MB"];
/// More tenants than the free space in existing pages holds.
const MANY: usize = 400;

/// Creates tenants until one fails; returns that one and its failure.
async fn until_full(fixture: &Fixture) -> (Spec, Failure) {
    for _ in 0..MANY {
        let spec = spec(fixture.settings());
        match fixture.provider.ensure(&fixture.world.context(), &spec).await {
            Ok(made) => fixture.world.registry.apply(&made.writes),
            Err(failure) => return (spec, failure),
        }
    }
    panic!("{:?}: the disk is not full", fixture.model);
}

/// Completes the tenant and checks that no draft or incomplete row is left.
async fn assert_complete(fixture: &Fixture, spec: &Spec) {
    ensured(fixture, spec).await;
    assert_eq!(fixture.count(spec).await, 1, "{:?}", fixture.model);
    let seen = fixture.provider.observe(&fixture.world.context(), spec).await.unwrap();
    assert!(seen.is_healthy(), "{:?}: {seen:?}", fixture.model);
    let drafts = "SELECT datname FROM pg_database WHERE datname LIKE 'tenantry_draft%'";
    assert!(fixture.sql(drafts).await.is_empty());
    let half = "SELECT name FROM tenantry.homes WHERE completed IS NULL";
    assert!(fixture.sql(half).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_wait_for_disk_space_and_continue() {
    let Some(disk) = SmallDisk::new(MEGABYTES) else { return };
    let Some(mut server) = OwnPostgres::start_in(disk.path(), &SETTINGS).await else { return };
    let mut fleets = Vec::new();
    for model in MODELS {
        let fixture = Fixture::on(TestDatabase::on(&server.url()).await, model, |_| {});
        let before = make(&fixture).await;
        fleets.push((fixture, before));
    }

    disk.fill();
    let mut waiting = Vec::new();
    for (fixture, (before, made)) in &fleets {
        let (late, failure) = until_full(fixture).await;
        assert_eq!(
            (failure.class, &*failure.code),
            (Retryable, "disk_full"),
            "{:?}: {failure}",
            fixture.model
        );
        assert!(failure.message.contains("PostgreSQL's disk is full: free space on it"), "{failure}");
        // Existing tenants keep working.
        log_in(fixture, before, &made.outputs).await.unwrap();
        let rows = fixture.provider.data().unwrap().scoped(before.tenant.id);
        assert_eq!(rows.list("tasks", 10, None).await.unwrap().rows.len(), 3);
        waiting.push(late);
    }
    disk.make_room();
    for ((fixture, _), late) in fleets.iter().zip(&waiting) {
        assert_complete(fixture, late).await;
    }

    // Without space for its log the server crashes.
    disk.fill();
    server.write_until_it_crashes().await;
    let mut waiting = Vec::new();
    for (fixture, _) in &fleets {
        let late = spec(fixture.settings());
        let failure = fixture.provider.ensure(&fixture.world.context(), &late).await.map(drop).unwrap_err();
        assert!(failure.may_retry(), "{:?}: {failure:?}", fixture.model);
        waiting.push(late);
    }
    disk.make_room();
    server.revive().await;
    for ((fixture, (before, _)), late) in fleets.iter().zip(&waiting) {
        assert_complete(fixture, late).await;
        let seen = fixture.provider.observe(&fixture.world.context(), before).await.unwrap();
        assert!(seen.is_healthy(), "{:?}: {seen:?}", fixture.model);
    }
}
