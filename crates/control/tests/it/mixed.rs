//! Many concurrent onboardings of all plans while one provider call in five fails at random: afterwards each
//! tenant is active with all its resources or rolled back completely, and no resource is orphaned.

use std::collections::BTreeMap;

use tenantry_control::Caller;
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::{report, seed};

use crate::crash::people;
use crate::world::{World, request};
use crate::{scan, story};

const TENANTS: usize = 200;

async fn all_end_well(world: World, store: &str) {
    let (seed, chance) = seed::generator("mixed");
    let told = format!("TENANTRY_TEST_SEED={seed}");
    world.plan.by_chance(&world.clock, chance);
    let process = world.start(Faults::new()).await.expect("a process");
    let stories = story::all().await;
    let asked =
        (0..TENANTS).map(|n| {
            let (control, plan) = (&process.control, &stories[n % stories.len()].plan);
            async move {
                control.create_tenant(&Caller::system(), &request(&format!("Mixed {n}"), plan), None).await
            }
        });
    for made in futures::future::join_all(asked).await {
        made.unwrap_or_else(|error| panic!("{told}: refused: {error:?}"));
    }
    people(&world, &process.control, false).await.unwrap_or_else(|why| panic!("{told}: {why}"));
    process.control.stop().await;
    let faults = scan::faults(&world).await;
    assert!(faults.is_empty(), "{told}: {}", faults.join("\n"));
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for found in world.stores().scan().await.tenants.into_values() {
        *ends.entry(format!("{} {}", found.template, found.status)).or_default() += 1;
    }
    assert_eq!(ends.values().sum::<usize>(), TENANTS, "{told}");
    let struck = world.plan.struck();
    assert!(struck > 100, "{told}: {struck} faults");
    report::add(&format!("mixed on {store}: {TENANTS} tenants, {struck} faults, {ends:?}, seed {seed}"));
}

#[tokio::test]
async fn two_hundred_tenants_on_sqlite() {
    all_end_well(World::sqlite().await, "SQLite").await;
}

#[tokio::test]
async fn two_hundred_tenants_on_postgres() {
    if let Some(world) = World::postgres().await {
        all_end_well(world, "PostgreSQL").await;
    }
}
