//! Fences are applied at once if the provider answers, otherwise by the background task, and at activation if
//! a tenant was suspended during its onboarding.

use std::path::PathBuf;

use tenantry_control::suspension::{ResumeTenant, SuspendTenant};
use tenantry_control::{Caller, Control};
use tenantry_model::suspension::{Reason, SuspensionMode};
use tenantry_testkit::crash_ledger::Faults;

use crate::crash::people;
use crate::world::{World, in_both_worlds, request};

in_both_worlds! {
    unacknowledged_and_lost_fences_are_applied_again
    a_tenant_suspended_during_onboarding_is_fenced_at_activation
}

const BLOCKED: SuspendTenant = SuspendTenant { reason: Reason::Admin, mode: SuspensionMode::Blocked };

/// The applied fences of the test provider's three resources.
fn fences(world: &World) -> Vec<String> {
    let files = std::fs::read_dir(world.stores().data.join("things")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let fences = files.filter(|file: &PathBuf| file.extension().is_some_and(|it| it == "fence"));
    fences.map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

async fn onboard(world: &World, control: &Control) {
    control.create_tenant(&Caller::system(), &request("Acme", "gated"), None).await.unwrap();
    people(world, control, false).await.unwrap();
}

async fn unacknowledged_and_lost_fences_are_applied_again(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    onboard(&world, control).await;
    let deaf = world.stores().data.join("things/deaf");
    std::fs::write(&deaf, "").unwrap();
    let view = control.suspend(&caller, "acme", BLOCKED, None).await.unwrap().value;
    assert_eq!(view.fences.len(), 3);
    assert!(
        view.fences.iter().all(|fence| fence.mode == Some(SuspensionMode::Blocked) && !fence.acknowledged)
    );
    assert_eq!((control.sweep().await.unwrap().fenced, fences(&world).len()), (1, 0));

    std::fs::remove_file(&deaf).unwrap();
    assert_eq!(control.sweep().await.unwrap().fenced, 1);
    assert_eq!(fences(&world), ["blocked"; 3]);
    assert_eq!(control.sweep().await.unwrap().fenced, 0, "all fences are acknowledged");

    // A server that replaced another one may have lost a fence.
    let lost = std::fs::read_dir(world.stores().data.join("things")).unwrap().flatten();
    let lost = lost.map(|file| file.path()).find(|file| file.extension().is_some_and(|it| it == "fence"));
    std::fs::remove_file(lost.unwrap()).unwrap();
    assert_eq!(control.sweep().await.unwrap().fenced, 1);
    assert_eq!(fences(&world), ["blocked"; 3]);
    assert_eq!(control.sweep().await.unwrap().fenced, 0, "all fences are applied");

    let view = control.resume(&caller, "acme", ResumeTenant::default(), None).await.unwrap().value;
    assert!(view.fences.iter().all(|fence| fence.mode.is_none() && fence.acknowledged));
    assert_eq!(fences(&world), Vec::<String>::new());
    control.stop().await;
}

async fn a_tenant_suspended_during_onboarding_is_fenced_at_activation(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    control.create_tenant(&caller, &request("Acme", "gated"), None).await.unwrap();
    let view = control.suspend(&caller, "acme", BLOCKED, None).await.unwrap().value;
    assert_eq!(view.fences, []);
    people(&world, control, false).await.unwrap();
    control.sweep().await.unwrap();
    assert_eq!(fences(&world), ["blocked"; 3]);
    control.stop().await;
}
