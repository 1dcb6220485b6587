//! Rotation of credentials: a new secret can be claimed once, the former one is valid until the background
//! task retires it after the grace period, and of two concurrent rotations one succeeds.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tenantry_control::operations::erase::EraseTenant;
use tenantry_control::operations::offboard::OffboardTenant;
use tenantry_control::operations::rotate_credentials::RotateCredentials;
use tenantry_control::suspension::SuspendTenant;
use tenantry_control::view::OperationView;
use tenantry_control::{Caller, Control, Error, ErrorKind, IdempotencyKey};
use tenantry_engine::{Clock, OperationState, SignalKind};
use tenantry_model::suspension::{Reason, SuspensionMode};
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::database::execute;

use crate::crash::people;
use crate::faulty::{Calls, Fault, How, rotation};
use crate::offboard::Stopped;
use crate::scan;
use crate::world::{Process, World, in_both_worlds, request};

in_both_worlds! {
    the_former_secret_ends_after_the_grace_period
    a_compromised_secret_ends_at_once
    a_failed_rotation_needs_attention
    of_two_concurrent_rotations_the_later_one_is_rejected
    a_tenant_without_credentials_is_rejected
    secrets_end_with_the_tenant
}

const NOW: RotateCredentials = RotateCredentials { grace_hours: 0 };

/// A process with an active tenant that has resources with secrets, two of them from inline steps.
async fn active(world: &World) -> Process {
    let process = world.start(Faults::new()).await.unwrap();
    process.control.create_tenant(&Caller::system(), &request("Acme", "gated"), None).await.unwrap();
    people(world, &process.control, false).await.unwrap();
    process
}

async fn rotate(control: &Control, what: RotateCredentials) -> Result<OperationView, Error> {
    Ok(control.rotate_credentials(&Caller::system(), "acme", what, None).await?.value)
}

async fn rotated(world: &World, control: &Control, what: RotateCredentials) -> OperationView {
    let begun = rotate(control, what).await.unwrap();
    people(world, control, false).await.unwrap();
    let ended = control.operation(&Caller::system(), begun.id).await.unwrap();
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
    ended
}

/// For each current secret, the operation that created it and whether the former one is still valid.
fn secrets(world: &World) -> BTreeSet<(String, String)> {
    let files = std::fs::read_dir(world.stores().data.join("things")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let files = files.filter(|file| file.extension().is_some_and(|it| it == "secrets"));
    let word = |text: &str, n: usize| text.split(' ').nth(n).unwrap_or_default().to_owned();
    files
        .map(|file| std::fs::read_to_string(file).unwrap())
        .map(|text| (word(&text, 0), word(&text, 1)))
        .collect()
}

fn of(operation: &OperationView, former: &str) -> BTreeSet<(String, String)> {
    BTreeSet::from([(operation.id.to_string(), former.to_owned())])
}

async fn pass(world: &World, hours: u64) {
    world.clock.sleep_until(world.clock.now() + Duration::from_secs(hours * 3_600)).await;
}

fn is_conflict(error: &Error, code: &str) {
    assert_eq!((error.kind(), error.code.as_str()), (ErrorKind::Conflict, code), "{error:?}");
}

async fn the_former_secret_ends_after_the_grace_period(world: World) {
    let process = active(&world).await;
    let (control, caller) = (&process.control, Caller::system());
    let key = || IdempotencyKey::parse("rotate").ok();
    let day = RotateCredentials::default();
    let begun = control.rotate_credentials(&caller, "acme", day, key()).await.unwrap();
    let again = control.rotate_credentials(&caller, "acme", day, key()).await.unwrap();
    assert_eq!((begun.replayed, again.replayed, begun.value.id), (false, true, again.value.id));
    let reused = control.rotate_credentials(&caller, "acme", NOW, key()).await.unwrap_err();
    assert_eq!(reused.code.as_str(), "idempotency_key_reused");
    people(&world, control, false).await.unwrap();
    let ended = control.operation(&caller, begun.value.id).await.unwrap();
    assert_eq!((ended.kind.as_str(), ended.state), ("rotate_credentials", OperationState::Succeeded));
    let response = ended.response.as_ref().unwrap();
    assert!(response.credentials_waiting);
    assert_eq!(response.resources.keys().collect::<Vec<_>>(), ["first", "second"]);
    for resource in response.resources.values() {
        assert_eq!(resource.outputs["secret_of"], json!(ended.id));
        let finished = ended.finished_at.unwrap();
        assert_eq!(resource.outputs["former_until"], json!(finished + Duration::from_secs(86_400)));
    }
    let claimed = control.claim_credentials(&caller, ended.id).await.unwrap();
    let values: Vec<String> = claimed.into_iter().map(|it| it.value).collect();
    assert_eq!(values, [format!("of {}", ended.id), format!("of {}", ended.id)]);
    let again = control.claim_credentials(&caller, ended.id).await;
    assert_eq!(
        again.err().map(|gone| gone.code.as_str()),
        Some("credentials_gone"),
        "credentials can be claimed once"
    );

    // A third valid secret is not allowed.
    is_conflict(&rotate(control, day).await.unwrap_err(), "rotation_under_way");
    pass(&world, 23).await;
    assert_eq!((control.sweep().await.unwrap().retired, secrets(&world)), (0, of(&ended, "stays")));
    pass(&world, 2).await;
    // A failed retirement is retried.
    let deaf = world.stores().data.join("things/deaf");
    std::fs::write(&deaf, "").unwrap();
    assert_eq!((control.sweep().await.unwrap().retired, secrets(&world)), (0, of(&ended, "stays")));
    assert_eq!(rotate(control, day).await.unwrap_err().kind(), ErrorKind::Unavailable);
    std::fs::remove_file(&deaf).unwrap();
    assert_eq!((control.sweep().await.unwrap().retired, secrets(&world)), (2, of(&ended, "ends")));
    assert_eq!(control.sweep().await.unwrap().retired, 0);

    // A new rotation need not wait for the background task, and suspended tenants can rotate too.
    let second = rotated(&world, control, day).await;
    pass(&world, 25).await;
    let what = SuspendTenant { reason: Reason::Admin, mode: SuspensionMode::NoLogin };
    control.suspend(&caller, "acme", what, None).await.unwrap();
    let third = rotated(&world, control, RotateCredentials { grace_hours: 720 }).await;
    assert_ne!(second.id, third.id);
    assert_eq!((control.sweep().await.unwrap().retired, secrets(&world)), (0, of(&third, "stays")));
    process.control.stop().await;
}

async fn a_compromised_secret_ends_at_once(world: World) {
    let process = active(&world).await;
    let control = &process.control;
    rotated(&world, control, RotateCredentials::default()).await;
    let ended = rotated(&world, control, NOW).await;
    assert_eq!(secrets(&world), of(&ended, "ends"));
    let response = ended.response.unwrap();
    assert!(response.resources.values().all(|it| it.outputs["former_until"] == Value::Null));
    pass(&world, 25).await;
    assert_eq!(control.sweep().await.unwrap().retired, 0, "no former secret is left to retire");
    // The resource's outputs name the newest secret.
    let next = rotated(&world, control, NOW).await;
    assert_eq!(next.response.unwrap().resources["first"].outputs["secret_of"], json!(next.id));
    process.control.stop().await;
}

async fn a_failed_rotation_needs_attention(world: World) {
    let process = active(&world).await;
    let control = &process.control;
    for (how, times) in How::ALL.into_iter().flat_map(|how| [(how, 1), (how, u32::MAX)]) {
        world.plan.set(&world.clock, &[Fault::new(&rotation("first"), true, how, times)]);
        let begun = rotate(control, NOW).await.unwrap();
        world.quiet().await;
        let seen = control.operation(&Caller::system(), begun.id).await.unwrap();
        if times == u32::MAX {
            assert_eq!(seen.state, OperationState::NeedsAttention, "{how:?}");
            is_conflict(&rotate(control, NOW).await.unwrap_err(), "tenant_busy");
        }
        people(&world, control, false).await.unwrap();
        let ended = control.operation(&Caller::system(), begun.id).await.unwrap();
        assert_eq!(ended.state, OperationState::Succeeded, "{how:?}");
        assert_eq!(secrets(&world), of(&ended, "ends"), "{how:?}");
        assert_eq!(control.claim_credentials(&Caller::system(), ended.id).await.unwrap().len(), 2);
    }
    for calls in [Calls::InTurn, Calls::AtOnce] {
        *world.plan.calls.lock() = calls;
        let ended = rotated(&world, control, NOW).await;
        assert_eq!(secrets(&world), of(&ended, "ends"), "{calls:?}");
    }
    process.control.stop().await;
}

async fn of_two_concurrent_rotations_the_later_one_is_rejected(world: World) {
    let process = active(&world).await;
    let (control, caller) = (&process.control, Caller::system());
    world.plan.set(&world.clock, &[Fault::new(&rotation("first"), true, How::Fatal, 1)]);
    let begun = rotate(control, RotateCredentials::default()).await.unwrap();
    world.quiet().await;
    // Another rotation succeeds before this one is retried.
    let faster = "INSERT INTO rotations (operation_id, resource_id, tenant_id, until)
         SELECT 'op_faster', id, tenant_id, '2999-01-01 00:00:00+00:00' FROM resources WHERE step_key = 'first'";
    execute(&world.registry_url(), faster.to_owned()).await.unwrap();
    let before = secrets(&world);
    control.signal(&caller, begun.id, SignalKind::Retry, None).await.unwrap();
    world.quiet().await;
    let parked = control.operation(&caller, begun.id).await.unwrap();
    assert_eq!(parked.state, OperationState::NeedsAttention);
    let step = parked.steps.iter().find(|step| step.key == "first").unwrap();
    assert_eq!(step.error.as_ref().unwrap().code.as_str(), "rotation_under_way");
    assert_eq!(secrets(&world), before);
    control.signal(&caller, begun.id, SignalKind::Cancel, None).await.unwrap();
    world.quiet().await;
    let cancelled = control.operation(&caller, begun.id).await.unwrap();
    assert_eq!((cancelled.state, secrets(&world)), (OperationState::Cancelled, before));
    process.control.stop().await;
}

async fn a_tenant_without_credentials_is_rejected(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    control.create_tenant(&caller, &request("Acme", "starter"), None).await.unwrap();
    is_conflict(&rotate(control, NOW).await.unwrap_err(), "illegal_transition");
    people(&world, control, false).await.unwrap();
    is_conflict(&rotate(control, NOW).await.unwrap_err(), "nothing_to_rotate");
    let too_long = rotate(control, RotateCredentials { grace_hours: 721 }).await.unwrap_err();
    assert_eq!((too_long.kind(), too_long.errors[0].path.as_str()), (ErrorKind::Invalid, "grace_hours"));
    let unknown = control.rotate_credentials(&caller, "missing", NOW, None).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    process.control.stop().await;
}

async fn secrets_end_with_the_tenant(world: World) {
    let process = active(&world).await;
    let (control, caller) = (&process.control, Caller::system());
    let ended = rotated(&world, control, RotateCredentials::default()).await;
    let what = OffboardTenant { reason: "contract 7 has ended".to_owned(), hold_days: Some(30) };
    let mut time = Stopped::clock(&world);
    control.offboard(&caller, "acme", &what, None).await.unwrap();
    is_conflict(&rotate(control, NOW).await.unwrap_err(), "illegal_transition");
    // The grace period also ends during the hold.
    assert_eq!(secrets(&world), of(&ended, "stays"));
    time.pass(Duration::from_secs(25 * 3_600)).await;
    assert_eq!((control.sweep().await.unwrap().retired, secrets(&world)), (2, of(&ended, "ends")));
    let what = EraseTenant { reason: "asked".to_owned() };
    control.erase(&caller, "acme", &what, None).await.unwrap();
    drop(time);
    people(&world, control, false).await.unwrap();
    process.control.stop().await;
    assert_eq!(scan::faults(&world).await, [""; 0]);
}
