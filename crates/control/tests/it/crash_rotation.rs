//! Crash tests of a rotation of PostgreSQL logins, for each isolation model: the call fails in every way or
//! is repeated, and the process stops at every commit point. Afterwards exactly one new password was issued,
//! it and the former one are valid, and both end with their tenant.

use std::time::Duration;

use tenantry_control::operations::erase::EraseTenant;
use tenantry_control::operations::rotate_credentials::RotateCredentials;
use tenantry_control::view::OperationView;
use tenantry_control::{Caller, Control, ErrorKind, IdempotencyKey};
use tenantry_engine::{Clock, OperationState};
use tenantry_testkit::crash_ledger::{Fault as LedgerFault, Faults};
use tenantry_testkit::database::execute;
use tenantry_testkit::report;

use crate::crash::{every, full, in_lives, people, ways};
use crate::faulty::{Calls, Fault, rotation};
use crate::scan;
use crate::world::{World, request};

/// One plan per isolation model.
const PLANS: [&str; 3] = ["starter", "growth", "enterprise"];

/// The URL with which the tenant's application connects, from the operation that issued its password.
async fn login(control: &Control, operation: &OperationView) -> Result<String, String> {
    let outputs = &operation.response.as_ref().ok_or("no response")?.resources["database"].outputs;
    let text =
        |key: &str| outputs[key].as_str().map(str::to_owned).unwrap_or_else(|| outputs[key].to_string());
    let claimed =
        control.claim_credentials(&Caller::system(), operation.id).await.map_err(|why| why.to_string())?;
    let [role, host, port, database] = ["role", "host", "port", "database"].map(text);
    let name = format!("postgres_password:{role}");
    let password = claimed.into_iter().find(|it| it.name == name).ok_or("no password was handed out")?.value;
    Ok(format!("postgres://{role}:{password}@{host}:{port}/{database}"))
}

async fn is_let_in(login: &str) -> bool {
    let write =
        "DO $$ BEGIN UPDATE projects SET name = 'Renamed'; IF NOT FOUND THEN RAISE 'none'; END IF; END $$";
    execute(login, write.to_owned()).await.is_ok()
}

/// Onboards a tenant without faults, then rotates its credentials with one process after another. Returns for
/// each process whether it reached all of its faults.
async fn play(world: &World, plan: &str, faults: &[Fault], lives: &[Faults]) -> Result<Vec<bool>, String> {
    let caller = Caller::system();
    let process = world.start(Faults::new()).await.map_err(|why| why.to_string())?;
    let made = process.control.create_tenant(&caller, &request("Crash", plan), None).await.unwrap();
    people(world, &process.control, false).await?;
    let made = process.control.operation(&caller, made.operation.id).await.unwrap();
    let former = login(&process.control, &made).await?;
    process.control.stop().await;

    world.plan.set(&world.clock, faults);
    let reached = in_lives(world, lives, async |process| {
        let control = &process.control;
        loop {
            let (what, key) = (RotateCredentials::default(), IdempotencyKey::parse("rotate").ok());
            match control.rotate_credentials(&caller, "crash", what, key).await {
                Ok(_) => break people(world, control, false).await,
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                Err(error) => return Err(format!("refused: {error:?}")),
            }
        }
    });
    let reached = reached.await?;

    let process = world.start(Faults::new()).await.map_err(|why| why.to_string())?;
    let control = &process.control;
    let (query, page) = Default::default();
    let all = control.operations(&caller, &query, &page).await.unwrap().data;
    let rotations: Vec<OperationView> =
        all.into_iter().filter(|it| it.kind == "rotate_credentials").collect();
    let [rotation] = &rotations[..] else { return Err(format!("{} rotations", rotations.len())) };
    if rotation.state != OperationState::Succeeded {
        return Err(format!("{rotation:?}"));
    }
    let newest = login(control, rotation).await?;
    let good = async || [is_let_in(&former).await, is_let_in(&newest).await];
    let mut faults = Vec::new();
    let mut expect = |what: &str, is: [bool; 2], wanted: [bool; 2]| {
        if is != wanted {
            faults.push(format!("{what}: former and new login accepted: {is:?}"));
        }
    };
    expect("both passwords are valid", good().await, [true, true]);
    let day = Duration::from_secs(25 * 3_600);
    world.clock.sleep_until(world.clock.now() + day).await;
    control.sweep().await.map_err(|why| why.to_string())?;
    expect("the former password has ended", good().await, [false, true]);
    let status = control.tenant_status(&caller, "crash").await.unwrap();
    if !status.database.healthy {
        faults.push(format!("{:?}", status.resources));
    }
    control.erase(&caller, "crash", &EraseTenant { reason: "asked".to_owned() }, None).await.unwrap();
    people(world, control, false).await?;
    process.control.stop().await;
    faults.extend(scan::faults(world).await);
    if faults.is_empty() { Ok(reached) } else { Err(faults.join("\n")) }
}

#[tokio::test]
async fn a_rotation_fails_in_every_way() {
    let mut cases = 0;
    for (lane, plan) in PLANS.into_iter().enumerate() {
        for (how, times) in ways(lane) {
            let Some(world) = World::with_tenants_on_postgres().await else { return };
            let fault = Fault::new(&rotation("database"), true, how, times);
            let played = play(&world, plan, std::slice::from_ref(&fault), &[]).await;
            played.unwrap_or_else(|why| panic!("{plan}: {fault:?}: {why}"));
            assert!(world.plan.struck() > 0, "{plan}: {fault:?}");
            cases += 1;
        }
        for calls in [Calls::InTurn, Calls::AtOnce] {
            let Some(world) = World::with_tenants_on_postgres().await else { return };
            *world.plan.calls.lock() = calls;
            play(&world, plan, &[], &[]).await.unwrap_or_else(|why| panic!("{plan}: {calls:?}: {why}"));
            cases += 1;
        }
    }
    report::add(&format!("rotation: {cases} cases of a call that fails in every way, or is made twice"));
}

#[tokio::test]
async fn the_process_stops_at_every_commit_point_of_a_rotation() {
    let mut cases = 0;
    for (lane, plan) in PLANS.into_iter().enumerate() {
        for (other, fault) in LedgerFault::ALL.into_iter().enumerate() {
            for first in every(if full() { 1 } else { 3 }, lane + other) {
                let Some(world) = World::with_tenants_on_postgres().await else { return };
                let lives = [Faults::from([(first, fault)])];
                let played = play(&world, plan, &[], &lives).await;
                let reached = played.unwrap_or_else(|why| panic!("{plan}: {fault:?} at call {first}: {why}"));
                cases += 1;
                if reached != [true] {
                    break;
                }
            }
        }
    }
    report::add(&format!(
        "rotation: {cases} cases of a process that stops, or whose ledger fails, at a commit point"
    ));
}
