//! Rotation of credentials: a new secret is handed out once, the former one is good until its time is over and the sweep has
//! been there, and of two rotations at once there is one.

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
use tenantry_model::suspension::{Grade, Reason};
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::database::execute;

use crate::crash::people;
use crate::faulty::{Calls, Fault, How, rotation};
use crate::offboard::Stopped;
use crate::scan;
use crate::world::{Process, World, in_both_worlds, request};

in_both_worlds! {
    the_former_secret_ends_when_its_time_is_over
    a_secret_that_leaked_ends_at_once
    a_rotation_that_fails_asks_for_a_person
    of_two_at_once_the_later_one_shuts_nobody_out
    who_has_nothing_to_rotate_is_told_so
    who_leaves_takes_its_secrets_along
}

const NOW: RotateCredentials = RotateCredentials { grace_hours: 0 };

/// A process with an active tenant that has things with secrets, two of them made by steps that the onboarding waited for.
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

/// Of each secret by now, who made it and whether the one before is good too.
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
    assert_eq!((error.kind, error.code), (ErrorKind::Conflict, code), "{error:?}");
}

async fn the_former_secret_ends_when_its_time_is_over(world: World) {
    let process = active(&world).await;
    let (control, caller) = (&process.control, Caller::system());
    let key = || IdempotencyKey::parse("rotate").ok();
    let day = RotateCredentials::default();
    let begun = control.rotate_credentials(&caller, "acme", day, key()).await.unwrap();
    let again = control.rotate_credentials(&caller, "acme", day, key()).await.unwrap();
    assert_eq!((begun.replayed, again.replayed, begun.value.id), (false, true, again.value.id));
    let reused = control.rotate_credentials(&caller, "acme", NOW, key()).await.unwrap_err();
    assert_eq!(reused.kind, ErrorKind::KeyReused);
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
    assert_eq!(again.err().map(|gone| gone.code), Some("credentials_gone"), "it is handed out once");

    // There would be three.
    is_conflict(&rotate(control, day).await.unwrap_err(), "rotation_under_way");
    pass(&world, 23).await;
    assert_eq!((control.sweep().await.unwrap().retired, secrets(&world)), (0, of(&ended, "stays")));
    pass(&world, 2).await;
    // One that does not answer is told again.
    let deaf = world.stores().data.join("things/deaf");
    std::fs::write(&deaf, "").unwrap();
    assert_eq!((control.sweep().await.unwrap().retired, secrets(&world)), (0, of(&ended, "stays")));
    assert_eq!(rotate(control, day).await.unwrap_err().kind, ErrorKind::Unavailable);
    std::fs::remove_file(&deaf).unwrap();
    assert_eq!((control.sweep().await.unwrap().retired, secrets(&world)), (2, of(&ended, "ends")));
    assert_eq!(control.sweep().await.unwrap().retired, 0);

    // Whoever rotates again need not wait for the sweep; a suspended tenant's secrets can leak too.
    let second = rotated(&world, control, day).await;
    pass(&world, 25).await;
    let what = SuspendTenant { reason: Reason::Admin, grade: Grade::NoLogin };
    control.suspend(&caller, "acme", what, None).await.unwrap();
    let third = rotated(&world, control, RotateCredentials { grace_hours: 720 }).await;
    assert_ne!(second.id, third.id);
    assert_eq!((control.sweep().await.unwrap().retired, secrets(&world)), (0, of(&third, "stays")));
    process.control.stop().await;
}

async fn a_secret_that_leaked_ends_at_once(world: World) {
    let process = active(&world).await;
    let control = &process.control;
    rotated(&world, control, RotateCredentials::default()).await;
    let ended = rotated(&world, control, NOW).await;
    assert_eq!(secrets(&world), of(&ended, "ends"));
    let response = ended.response.unwrap();
    assert!(response.resources.values().all(|it| it.outputs["former_until"] == Value::Null));
    pass(&world, 25).await;
    assert_eq!(control.sweep().await.unwrap().retired, 0, "nothing is left to be ended");
    // What a resource says of itself by now names the newest.
    let next = rotated(&world, control, NOW).await;
    assert_eq!(next.response.unwrap().resources["first"].outputs["secret_of"], json!(next.id));
    process.control.stop().await;
}

async fn a_rotation_that_fails_asks_for_a_person(world: World) {
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

async fn of_two_at_once_the_later_one_shuts_nobody_out(world: World) {
    let process = active(&world).await;
    let (control, caller) = (&process.control, Caller::system());
    world.plan.set(&world.clock, &[Fault::new(&rotation("first"), true, How::Fatal, 1)]);
    let begun = rotate(control, RotateCredentials::default()).await.unwrap();
    world.quiet().await;
    // The other one comes to its end before this one is tried.
    let faster = "INSERT INTO rotations (operation_id, resource_id, tenant_id, until)
         SELECT 'op_faster', id, tenant_id, '2999-01-01 00:00:00+00:00' FROM resources WHERE step_key = 'first'";
    execute(&world.registry_url(), faster.to_owned()).await.unwrap();
    let before = secrets(&world);
    control.signal(&caller, begun.id, SignalKind::Retry, None).await.unwrap();
    world.quiet().await;
    let parked = control.operation(&caller, begun.id).await.unwrap();
    assert_eq!(parked.state, OperationState::NeedsAttention);
    let step = parked.steps.iter().find(|step| step.key == "first").unwrap();
    assert_eq!(step.error.as_ref().unwrap().code, "rotation_under_way");
    assert_eq!(secrets(&world), before);
    control.signal(&caller, begun.id, SignalKind::Cancel, None).await.unwrap();
    world.quiet().await;
    let cancelled = control.operation(&caller, begun.id).await.unwrap();
    assert_eq!((cancelled.state, secrets(&world)), (OperationState::Cancelled, before));
    process.control.stop().await;
}

async fn who_has_nothing_to_rotate_is_told_so(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    control.create_tenant(&caller, &request("Acme", "starter"), None).await.unwrap();
    is_conflict(&rotate(control, NOW).await.unwrap_err(), "illegal_transition");
    people(&world, control, false).await.unwrap();
    is_conflict(&rotate(control, NOW).await.unwrap_err(), "nothing_to_rotate");
    let too_long = rotate(control, RotateCredentials { grace_hours: 721 }).await.unwrap_err();
    assert_eq!((too_long.kind, too_long.errors[0].path.as_str()), (ErrorKind::Invalid, "grace_hours"));
    let unknown = control.rotate_credentials(&caller, "nobody", NOW, None).await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::NotFound);
    process.control.stop().await;
}

async fn who_leaves_takes_its_secrets_along(world: World) {
    let process = active(&world).await;
    let (control, caller) = (&process.control, Caller::system());
    let ended = rotated(&world, control, RotateCredentials::default()).await;
    let what = OffboardTenant { reason: "contract 7 has ended".to_owned(), hold_days: Some(30) };
    let mut time = Stopped::clock(&world);
    control.offboard(&caller, "acme", &what, None).await.unwrap();
    is_conflict(&rotate(control, NOW).await.unwrap_err(), "illegal_transition");
    // Its time is over in the hold as well.
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
