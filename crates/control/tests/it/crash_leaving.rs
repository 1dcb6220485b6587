//! Crash tests of deletion: every deletion fails in every way, every call is repeated, and the process stops
//! at every commit point of an erasure, an offboarding and a reconsidered offboarding. Afterwards every
//! tenant has left nothing but a certificate, or is active as before.
//!
//! `cargo xtask test --full` runs all cases on both stores; a plain run takes a part of them on SQLite.

use tenantry_control::operations::erase::EraseTenant;
use tenantry_control::operations::offboard::OffboardTenant;
use tenantry_control::operations::offboard::certificate::check;
use tenantry_control::{Caller, Control, Error, ErrorKind, IdempotencyKey};
use tenantry_model::TenantStatus;
use tenantry_testkit::crash_ledger::{Fault as LedgerFault, Faults};
use tenantry_testkit::report;

use crate::crash::{every, full, in_lives, live, people, ways, worlds};
use crate::faulty::{Calls, Fault};
use crate::leaving::ask;
use crate::scan;
use crate::story::{self, Story};
use crate::world::{Process, World, request};

/// How a tenant is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Erase,
    Offboard,
    /// Offboarded and reconsidered at once.
    Reconsider,
}

pub const WAYS: [Way; 3] = [Way::Erase, Way::Offboard, Way::Reconsider];

/// Differences that a reconsidered offboarding leaves in the registry.
const BEEN_AWAY: [&str; 6] = [
    "events tenant.deprovisioning",
    "events tenant.reconsidered",
    "operations cancelled",
    "resources absent",
    "subscriptions cancelled",
    "invoices open",
];

/// Exports that an offboarding completed according to the ledger, compensated or not.
const EXPORTED: &str = "SELECT s.key FROM steps s JOIN operations o ON o.id = s.operation_id
    WHERE o.kind = 'offboard' AND s.key = 'export' AND CAST(s.output AS text) LIKE '{%'";

/// Runs a case: onboards a tenant without faults, then deletes it with one process after another until all
/// operations have ended. Returns for each process whether it reached all of its faults.
pub async fn play(
    world: &World,
    story: &Story,
    way: Way,
    faults: &[Fault],
    lives: &[Faults],
) -> Result<Vec<bool>, String> {
    is_made(world, story).await?;
    leaves(world, way, faults, lives).await
}

/// Onboards a tenant without faults.
pub async fn is_made(world: &World, story: &Story) -> Result<(), String> {
    world.plan.set(&world.clock, &[]);
    let process = world.start(Faults::new()).await.map_err(|why| format!("does not start: {why:?}"))?;
    let document = request("Crash", &story.plan);
    live(world, &process, story, &mut false, false, &document).await?;
    process.control.stop().await;
    Ok(())
}

/// Deletes the tenant and checks what is left.
pub async fn leaves(
    world: &World,
    way: Way,
    faults: &[Fault],
    lives: &[Faults],
) -> Result<Vec<bool>, String> {
    world.plan.set(&world.clock, faults);
    let reached = in_lives(world, lives, async |process| leave(world, process, way).await).await?;
    let mut faults = scan::faults(world).await;
    if way == Way::Reconsider {
        // The history shows the offboarding; the resources are as before.
        faults.retain(|fault| !BEEN_AWAY.iter().any(|what| fault.contains(what)));
        // So does an export completed before the reconsideration: it has exactly one event.
        let exported = ask(world, EXPORTED).await.len();
        let told = format!("with {exported} events tenant.exported");
        let before = faults.len();
        faults.retain(|fault| exported == 0 || !fault.contains(&told));
        if exported > 0 && faults.len() == before {
            faults.push(format!(
                "{exported} exports were completed, but the number of events differs: {faults:?}"
            ));
        }
    }
    let end = if way == Way::Reconsider { "active" } else { "deprovisioned" };
    let tenants = world.stores().scan().await.tenants;
    faults.extend(tenants.values().filter(|found| found.status != end).map(|found| format!("{found:?}")));
    if faults.is_empty() { Ok(reached) } else { Err(faults.join("\n")) }
}

/// Repeats the request in every process until it is accepted, then sends the signals of an operator until all
/// operations have ended.
async fn leave(world: &World, process: &Process, way: Way) -> Result<(), String> {
    let (control, caller, reason) = (&process.control, Caller::system(), "it leaves".to_owned());
    let key = || IdempotencyKey::parse("leave").ok();
    match way {
        Way::Erase => {
            let what = EraseTenant { reason };
            answered(async || control.erase(&caller, "crash", &what, key()).await.map(drop)).await?;
        }
        Way::Offboard | Way::Reconsider => {
            let what = OffboardTenant { reason, hold_days: None };
            let still = tenantry_engine::Clock::busy(&world.clock);
            answered(async || control.offboard(&caller, "crash", &what, key()).await.map(drop)).await?;
            if way == Way::Reconsider {
                let key = || IdempotencyKey::parse("back").ok();
                answered(async || control.reconsider(&caller, "crash", key()).await.map(drop)).await?;
            }
            drop(still);
        }
    }
    people(world, control, false).await.map_err(|why| format!("{why} in {way:?}"))?;
    if way != Way::Reconsider { certified(control).await } else { Ok(()) }
}

/// Repeats a request as long as it is unavailable.
async fn answered(ask: impl AsyncFn() -> Result<(), Error>) -> Result<(), String> {
    loop {
        match ask().await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => return Err(format!("refused: {error:?}")),
        }
    }
}

async fn certified(control: &Control) -> Result<(), String> {
    let caller = Caller::system();
    let status = control.tenant(&caller, "crash").await.map_err(|why| why.to_string())?.status;
    let document = control.certificate(&caller, "crash").await.map_err(|why| format!("{status}: {why}"))?;
    let key = control.certificate_public_key().await.map_err(|why| why.to_string())?;
    check(&document.to_string(), &key.pem).map(drop)?;
    if status == TenantStatus::Deprovisioned {
        Ok(())
    } else {
        Err(format!("a certificate exists, but the tenant is {status}"))
    }
}

/// All stories under `--full`, otherwise the one that has a resource of every kind.
async fn stories() -> Vec<Story> {
    let all = story::all().await;
    all.into_iter().filter(|story| full() || story.plan == "enterprise").collect()
}

#[tokio::test]
async fn every_deletion_fails_in_every_way() {
    let mut cases = 0;
    for story in stories().await {
        let deleted: Vec<&str> = story.calls().filter(|key| *key != "smoke_test").collect();
        for (lane, step) in deleted.into_iter().enumerate() {
            for (how, times) in ways(lane) {
                for way in [Way::Erase, Way::Offboard] {
                    for world in worlds().await {
                        let fault = Fault::new(step, false, how, times);
                        let played = play(&world, &story, way, std::slice::from_ref(&fault), &[]).await;
                        played.unwrap_or_else(|why| panic!("{} {way:?}: {fault:?}: {why}", story.plan));
                        assert!(world.plan.struck() > 0, "{} {way:?}: {fault:?} never struck", story.plan);
                        cases += 1;
                    }
                    if !full() && lane % 2 == 0 {
                        break;
                    }
                }
            }
        }
    }
    report::add(&format!("leaving: {cases} cases of a deletion that fails once or always, in every way"));
}

#[tokio::test]
async fn every_call_is_made_twice() {
    let mut cases = 0;
    for story in stories().await {
        for calls in [Calls::InTurn, Calls::AtOnce] {
            for way in WAYS {
                for world in worlds().await {
                    *world.plan.calls.lock() = calls;
                    let played = play(&world, &story, way, &[], &[]).await;
                    played.unwrap_or_else(|why| panic!("{} {way:?}: {calls:?}: {why}", story.plan));
                    cases += 1;
                }
            }
        }
    }
    report::add(&format!("leaving: {cases} cases in which every call is made twice, in turn or at once"));
}

#[tokio::test]
async fn the_process_stops_at_every_commit_point() {
    let mut cases = 0;
    for story in stories().await {
        for way in WAYS {
            for (lane, fault) in LedgerFault::ALL.into_iter().enumerate() {
                for first in every(if full() { 1 } else { 13 }, lane) {
                    let mut reached = true;
                    for world in worlds().await {
                        let lives = [Faults::from([(first, fault)])];
                        let played = play(&world, &story, way, &[], &lives).await;
                        let told = || format!("{} {way:?}: {fault:?} at call {first}", story.plan);
                        reached &= played.unwrap_or_else(|why| panic!("{}: {why}", told())) == [true];
                        cases += 1;
                    }
                    if !reached {
                        break;
                    }
                }
            }
        }
    }
    report::add(&format!(
        "leaving: {cases} cases of a process that stops, or whose ledger fails, at a commit point"
    ));
}
