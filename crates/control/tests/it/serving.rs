//! Provider layers set by the operator: concurrency limits and regions hold for every request.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use serde_json::json;
use tenantry_control::operations::archive::{ArchiveSettings, Purpose};
use tenantry_control::operations::offboard::OffboardTenant;
use tenantry_control::{Caller, Control, ErrorKind, IdempotencyKey, OperationQuery, PageQuery};
use tenantry_engine::OperationState;
use tenantry_testkit::crash_ledger::{Fault as LedgerFault, Faults};

use crate::crash::people;
use crate::scan;
use crate::world::{World, in_both_worlds, request};

in_both_worlds! {
    concurrent_calls_stay_within_the_limit
    no_resource_is_created_outside_of_its_region
    a_region_that_is_withdrawn_can_be_backed_up_and_offboarded
    limits_of_unknown_providers_are_rejected
    a_thousand_requests_share_a_hundred_slots_across_a_crash
}

/// Repeated requests get the same response, no slot is reserved twice, and none is lost with the process.
async fn a_thousand_requests_share_a_hundred_slots_across_a_crash(mut world: World) {
    world.room = 100;
    let ask = async |control: &Control, n: usize| {
        let (document, key) =
            (request(&format!("Tenant {n}"), "growth"), IdempotencyKey::parse(format!("ask-{n}")));
        loop {
            // A request that times out, because a thousand wait for four connections, is repeated.
            match control.create_tenant(&Caller::system(), &document, key.clone().ok()).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                answer => return answer,
            }
        }
    };
    // The ledger dies while about half of the available slots are being reserved.
    let process = world.start(Faults::from([(200, LedgerFault::DieAfter)])).await.unwrap();
    tokio::select! {
        biased;
        () = process.ledger.died() => {}
        _ = join_all((0..1_000).map(|n| ask(&process.control, n))) => {}
    }
    drop(process);
    let process = world.start(Faults::new()).await.unwrap();
    let control = &process.control;
    let answers = join_all((0..1_000).map(|n| ask(control, n))).await;
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    let codes: BTreeSet<_> = refused.map(|error| error.code.as_str()).collect();
    assert_eq!(codes, BTreeSet::from(["insufficient_resources"]));
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 100);
    let [refused] = answers.iter().filter_map(|answer| answer.as_ref().err()).take(1).collect::<Vec<_>>()[..]
    else {
        panic!("no request was rejected")
    };
    assert_eq!(refused.message, "Insufficient resources: database in eu-central-1");
    people(&world, control, false).await.unwrap();
    process.control.stop().await;
    let scan = world.stores().scan().await;
    let active = scan.tenants.values().filter(|tenant| tenant.status == "active");
    assert_eq!((active.clone().count(), scan.tenants.len()), (100, 100));
    assert!(active.clone().all(|tenant| tenant.counts.get("slots") == Some(&1)));
    assert_eq!(scan::faults(&world).await, Vec::<String>::new());
}

async fn concurrent_calls_stay_within_the_limit(mut world: World) {
    world.at_once = BTreeMap::from([("folder_bucket".to_owned(), 2), ("builtin_config".to_owned(), 1)]);
    let process = world.start(Faults::new()).await.unwrap();
    let control = &process.control;
    let made = (0..30).map(|n| async move {
        control
            .create_tenant(&Caller::system(), &request(&format!("Tenant {n}"), "growth"), None)
            .await
            .unwrap()
    });
    join_all(made).await;
    people(&world, control, false).await.unwrap();
    assert_eq!(world.plan.most_at_once("folder_bucket"), 2);
    assert!(world.plan.most_at_once("sqlite_file") > 2, "a provider without a limit is not limited");
    process.control.stop().await;
    assert_eq!(scan::faults(&world).await, Vec::<String>::new());
}

/// The providers hold a tenant's resources and serve its region no longer.
async fn a_region_that_is_withdrawn_can_be_backed_up_and_offboarded(mut world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let caller = Caller::system();
    process.control.create_tenant(&caller, &request("Acme", "growth"), None).await.unwrap();
    people(&world, &process.control, false).await.unwrap();
    process.control.stop().await;
    drop(process);
    let elsewhere = BTreeSet::from(["us-east-1".to_owned()]);
    let providers = world.providers().await.unwrap();
    let outside = providers.iter().filter(|provider| !provider.transactional());
    world.regions = outside.map(|provider| (provider.name().to_owned(), elsewhere.clone())).collect();
    drop(providers);
    let process = world.start(Faults::new()).await.unwrap();
    let control = &process.control;
    let what = ArchiveSettings::default();
    let backup = control.archive_tenant(&caller, "acme", Purpose::Backup, &what, None).await.unwrap().value;
    people(&world, control, false).await.unwrap();
    let backup = control.operation(&caller, backup.id).await.unwrap();
    assert_eq!(backup.state, OperationState::Succeeded, "{backup:#?}");
    let leave = OffboardTenant { reason: "contract 7 has ended".to_owned(), hold_days: Some(0) };
    let offboarded = control.offboard(&caller, "acme", &leave, None).await.unwrap().value;
    people(&world, control, false).await.unwrap();
    let offboarded = control.operation(&caller, offboarded.id).await.unwrap();
    assert_eq!(offboarded.state, OperationState::Succeeded, "{offboarded:#?}");
    process.control.stop().await;
}

async fn no_resource_is_created_outside_of_its_region(mut world: World) {
    let elsewhere = BTreeSet::from(["us-east-1".to_owned()]);
    world.regions = BTreeMap::from([("folder_bucket".to_owned(), elsewhere.clone())]);
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let mut document = request("Acme", "growth");
    document["compliance"] = json!({ "data_residency": "eu-central-1" });
    let refused = control.create_tenant(&caller, &document, None).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.errors[0].path.as_str()),
        (ErrorKind::Invalid, "compliance.data_residency")
    );
    assert!(
        refused.errors[0].message.contains("folder_bucket does not serve the region eu-central-1"),
        "{refused}"
    );
    control.create_tenant(&caller, &request("Small", "starter"), None).await.unwrap();
    people(&world, control, false).await.unwrap();
    process.control.stop().await;
    drop(process);

    // Planned while the region was allowed, run after it is not allowed any more.
    world.regions.clear();
    let process = world.start(Faults::new()).await.unwrap();
    process.control.create_tenant(&caller, &request("Late", "enterprise"), None).await.unwrap();
    process.control.stop().await;
    drop(process);
    world.regions = BTreeMap::from([("folder_bucket".to_owned(), elsewhere)]);
    let process = world.start(Faults::new()).await.unwrap();
    people(&world, &process.control, false).await.unwrap();
    let undone = OperationQuery { state: Some(OperationState::RolledBack), ..OperationQuery::default() };
    let undone = process.control.operations(&caller, &undone, &PageQuery::default()).await.unwrap().data;
    let errors: Vec<_> =
        undone.iter().filter_map(|operation| Some(operation.error.as_ref()?.code.as_str())).collect();
    assert_eq!(errors, ["cross_border"]);
    process.control.stop().await;
    assert_eq!(scan::faults(&world).await, Vec::<String>::new());
}

async fn limits_of_unknown_providers_are_rejected(mut world: World) {
    world.at_once = BTreeMap::from([("unknown".to_owned(), 1)]);
    world.regions = BTreeMap::from([("nowhere".to_owned(), BTreeSet::new())]);
    let refused = world.start(Faults::new()).await.err().unwrap();
    let paths: Vec<&str> = refused.errors.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["regions.nowhere", "executor.at_once.unknown"]);
}
