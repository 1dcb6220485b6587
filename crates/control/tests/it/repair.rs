//! Repair and renewal: damaged resources are restored from the plan, certificates are renewed in time, and
//! working resources are never removed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tenantry_control::operations::repair::RepairTenant;
use tenantry_control::view::OperationView;
use tenantry_control::{Caller, Control, ErrorKind, IdempotencyKey};
use tenantry_engine::{Clock, OperationState, SignalKind};
use tenantry_testkit::crash_ledger::Faults;

use crate::crash::people;
use crate::faulty::{Fault, How};
use crate::world::{Process, World, in_both_worlds, request};

in_both_worlds! {
    damaged_resources_are_repaired
    a_failed_repair_removes_nothing
    a_certificate_is_renewed_before_its_end
    only_active_tenants_are_repaired
}

/// A process with an active enterprise tenant.
async fn active(world: &World) -> (Process, OperationView) {
    let process = world.start(Faults::new()).await.unwrap();
    let caller = Caller::system();
    let made = process.control.create_tenant(&caller, &request("Acme", "enterprise"), None).await.unwrap();
    people(world, &process.control, false).await.unwrap();
    let onboarding = process.control.operation(&caller, made.operation.id).await.unwrap();
    assert_eq!(onboarding.state, OperationState::Succeeded);
    (process, onboarding)
}

fn only(step: &str) -> RepairTenant {
    RepairTenant { steps: BTreeSet::from([step.to_owned()]) }
}

async fn done(world: &World, control: &Control, begun: &OperationView) -> OperationView {
    people(world, control, false).await.unwrap();
    control.operation(&Caller::system(), begun.id).await.unwrap()
}

fn output<'a>(operation: &'a OperationView, step: &str) -> &'a Value {
    &operation.response.as_ref().unwrap().resources[step].outputs
}

async fn damaged_resources_are_repaired(world: World) {
    let (process, _) = active(&world).await;
    let (control, caller) = (&process.control, Caller::system());
    let data = world.stores().data;
    let manifest = data.join("manifests/tenant-acme/role.yaml");
    let before = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, "gone: wrong").unwrap();
    std::fs::remove_file(data.join("dns/acme.json")).unwrap();
    let key = || IdempotencyKey::parse("repair").ok();
    let all = RepairTenant::default();
    let begun = control.repair(&caller, "acme", &all, key()).await.unwrap();
    let again = control.repair(&caller, "acme", &all, key()).await.unwrap();
    assert_eq!((begun.replayed, again.replayed), (false, true));
    assert_eq!(begun.value.id, again.value.id);
    let ended = done(&world, control, &begun.value).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
    let steps: BTreeSet<&str> = ended.steps.iter().map(|step| step.key.as_str()).collect();
    let expected = ["bucket", "certificate", "config", "database", "dns", "identity", "namespace"];
    assert_eq!(steps, BTreeSet::from(expected), "detached steps are not repaired");
    assert!(!ended.response.unwrap().credentials_waiting, "a repair issues no further invitation");
    assert_eq!(std::fs::read_to_string(&manifest).unwrap(), before);
    assert!(data.join("dns/acme.json").is_file());
    // A single step, with the steps that it needs.
    let begun = control.repair(&caller, "acme", &only("certificate"), None).await.unwrap().value;
    let ended = done(&world, control, &begun).await;
    let steps: Vec<(&str, Vec<&str>)> = ended
        .steps
        .iter()
        .map(|step| (step.key.as_str(), step.needs.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(steps, [("namespace", vec![]), ("dns", vec!["namespace"]), ("certificate", vec!["dns"])]);
    let unknown = control.repair(&caller, "acme", &only("welcome"), None).await.unwrap_err();
    assert_eq!((unknown.kind(), unknown.errors[0].path.as_str()), (ErrorKind::Invalid, "steps"));
    process.control.stop().await;
}

async fn a_failed_repair_removes_nothing(world: World) {
    let (process, _) = active(&world).await;
    let (control, caller) = (&process.control, Caller::system());
    let scan = || async { world.stores().scan().await.tenants.into_values().next().unwrap() };
    let before = scan().await;
    world.plan.set(&world.clock, &[Fault::new("bucket", true, How::Fatal, u32::MAX)]);
    let begun = control.repair(&caller, "acme", &RepairTenant::default(), None).await.unwrap().value;
    world.quiet().await;
    let parked = control.operation(&caller, begun.id).await.unwrap();
    assert_eq!(parked.state, OperationState::NeedsAttention);
    let busy = control.repair(&caller, "acme", &RepairTenant::default(), None).await.unwrap_err();
    assert_eq!((busy.kind(), busy.code.as_str()), (ErrorKind::Conflict, "tenant_busy"));
    control.signal(&caller, begun.id, SignalKind::Cancel, None).await.unwrap();
    world.quiet().await;
    assert_eq!(control.operation(&caller, begun.id).await.unwrap().state, OperationState::Cancelled);
    let after = scan().await;
    assert_eq!(after.status, "active");
    for what in ["resources present", "buckets", "databases", "namespaces", "hosts", "certificates"] {
        assert_eq!(after.counts.get(what), before.counts.get(what), "{what}");
    }
    process.control.stop().await;
}

async fn a_certificate_is_renewed_before_its_end(world: World) {
    let (process, onboarding) = active(&world).await;
    let control = &process.control;
    let first = output(&onboarding, "certificate").clone();
    assert_eq!(control.sweep().await.unwrap().renewals, 0, "it is not due");
    let wait = world.clock.sleep_until(world.clock.now() + Duration::from_secs(70 * 86_400));
    wait.await;
    assert_eq!(control.sweep().await.unwrap().renewals, 1);
    people(&world, control, false).await.unwrap();
    let folder = world.stores().data.join("certificates/certificates/acme");
    assert!(folder.join("cert.pem").is_file());
    let (query, page) = Default::default();
    let all = control.operations(&Caller::system(), &query, &page).await.unwrap().data;
    let renewal = all.iter().find(|operation| operation.kind == "repair").unwrap();
    assert_eq!(renewal.state, OperationState::Succeeded, "{renewal:?}");
    let second = output(renewal, "certificate");
    assert_ne!(second["serial"], first["serial"]);
    assert_eq!(second["names"], first["names"]);
    assert_eq!(control.sweep().await.unwrap().renewals, 0, "it is not due any more");
    process.control.stop().await;
}

async fn only_active_tenants_are_repaired(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    control.create_tenant(&caller, &request("Acme", "enterprise"), None).await.unwrap();
    let refused = control.repair(&caller, "acme", &RepairTenant::default(), None).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code.as_str()), (ErrorKind::Conflict, "illegal_transition"));
    let unknown = control.repair(&caller, "missing", &RepairTenant::default(), None).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    process.control.stop().await;
}
