//! The scheduled isolation check: the background task runs it once a day and writes an event for every leak.

use std::time::Duration;

use tenantry_control::isolation::CheckIsolation;
use tenantry_control::{Caller, Control};
use tenantry_engine::Clock;
use tenantry_model::Isolation;
use tenantry_provider::{Cell, Outcome, Who};
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::store::events_are_numbered;

use crate::crash::people;
use crate::world::{World, in_both_worlds, request};

in_both_worlds! {
    all_tenants_are_checked_once_a_day
}

fn rows(outcome: Outcome) -> Vec<Cell> {
    let leaks = u64::from(outcome == Outcome::Leak);
    vec![Cell {
        model: Isolation::Pool,
        who: Who::TenantLogin,
        what: "rows".to_owned(),
        outcome,
        tried: 1,
        leaks,
        found: Vec::new(),
        why: None,
    }]
}

async fn checks(control: &Control) -> usize {
    control.sweep().await.unwrap().isolation_checks
}

async fn later(world: &World, hours: u64) {
    world.clock.sleep_until(world.clock.now() + Duration::from_secs(hours * 3_600)).await;
}

async fn alarms(control: &Control) -> usize {
    let events = control.events(&Caller::system(), 0, 100).await.unwrap();
    events.iter().filter(|event| event.kind == "isolation.leak_found").count()
}

async fn all_tenants_are_checked_once_a_day(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let check = |outcome| *world.plan.matrix.lock() = Some(rows(outcome));
    check(Outcome::Denied);
    assert_eq!(checks(control).await, 0, "there is no tenant");
    control.create_tenant(&caller, &request("Acme", "starter"), None).await.unwrap();
    people(&world, control, false).await.unwrap();
    *world.plan.matrix.lock() = None;
    assert_eq!(checks(control).await, 0, "no provider supports the check");
    check(Outcome::Denied);
    assert_eq!([checks(control).await, checks(control).await], [1, 0]);
    let first = control.fleet_report().await.unwrap().unwrap();
    assert_eq!((first.leaks, first.named, first.tenants.len()), (0, false, 1));

    later(&world, 23).await;
    let named = CheckIsolation { tenants: vec!["acme".to_owned()] };
    control.check_isolation(&caller, &named, None).await.unwrap();
    assert_eq!(checks(control).await, 0);
    later(&world, 1).await;
    check(Outcome::Leak);
    assert_eq!(checks(control).await, 1, "a check of one tenant does not count as a check of all");
    let second = control.fleet_report().await.unwrap().unwrap();
    assert_eq!((second.leaks, second.changes.len()), (1, 1));
    assert_eq!(
        (second.changes[0].before, second.changes[0].now),
        (Some(Outcome::Denied), Some(Outcome::Leak))
    );
    events_are_numbered(&world.registry_url()).await;
    assert_eq!(alarms(control).await, 1);
    control.stop().await;
    let process = world.start(Faults::new()).await.unwrap();
    assert_eq!(checks(&process.control).await, 0, "another process sees the last report");
    process.control.stop().await;
}
