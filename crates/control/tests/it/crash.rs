//! Crash anywhere: every step fails in every way, every call is made twice, and the process stops at every commit
//! point. Afterwards every tenant is active with all that it needs, once, or rolled back to nothing.
//!
//! Template by template: a new template is covered by its line in `TEMPLATES`. The full set of cases runs under
//! `cargo xtask test --full`; a plain run takes those on SQLite without second crashes. One thread: then what is ready
//! runs before the virtual clock looks again, and every run is the same.

use tenantry_control::Caller;
use tenantry_engine::OperationState;
use tenantry_testkit::crash_ledger::{Fault as LedgerFault, Faults};
use tenantry_testkit::report;

use crate::faulty::{Fault, How};
use crate::scan;
use crate::world::{World, request};

/// Steps of the shipped template that call a provider or an endpoint.
const STEPS: [&str; 6] = ["identity", "config", "database", "billing", "smoke_test", "welcome"];

fn full() -> bool {
    std::env::var_os("TENANTRY_TEST_FULL").is_some()
}

/// Both worlds under `--full`, one without.
async fn worlds() -> Vec<World> {
    let mut worlds = vec![World::sqlite()];
    if full() {
        worlds.extend(World::postgres().await);
    }
    worlds
}

/// Lives one process after another until everything is finished; people retry what asks for them.
async fn play(world: &World, lives: &[Faults]) -> Result<Vec<bool>, String> {
    let caller = Caller::system();
    let key = || tenantry_control::IdempotencyKey::parse("crash").ok();
    let mut begun = false;
    let mut reached = Vec::new();
    for faults in lives.iter().chain([&Faults::new()]) {
        let last = faults.keys().last().copied().unwrap_or(0);
        let process = match world.start(faults.clone()).await {
            Ok(process) => Some(process),
            // The ledger died or was silent at the very start.
            Err(_) if !faults.is_empty() => None,
            Err(error) => return Err(format!("does not start: {error:?}")),
        };
        let Some(process) = process else {
            reached.push(true);
            continue;
        };
        let life = async {
            while !begun {
                match process.control.create_tenant(&caller, &request("Crash"), key()).await {
                    Ok(_) => begun = true,
                    Err(error) if error.kind == tenantry_control::ErrorKind::Unavailable => {}
                    Err(error) => return Err(format!("refused: {error}")),
                }
            }
            world.quiet().await;
            for operation in unfinished(&process.control).await? {
                if operation.state == OperationState::NeedsAttention {
                    // Somebody has mended the provider.
                    world.plan.set(&world.clock, &[]);
                    let retried = process
                        .control
                        .signal(&caller, operation.id, tenantry_engine::SignalKind::Retry, None)
                        .await;
                    retried.map_err(|e| e.to_string())?;
                }
            }
            world.quiet().await;
            match unfinished(&process.control).await?.as_slice() {
                [] => Ok(()),
                left => {
                    let states = left.iter().map(|o| {
                        let steps: Vec<_> =
                            o.steps.iter().map(|s| (&s.key, s.state, s.attempts, s.due_at)).collect();
                        format!("{} {:?} v{} {steps:?} {:?}", o.kind, o.state, o.version, o.error)
                    });
                    Err(format!(
                        "nothing moves any more, and unfinished are {}",
                        states.collect::<Vec<_>>().join("; ")
                    ))
                }
            }
        };
        tokio::select! {
            biased;
            () = process.ledger.died() => {}
            lived = life => lived?,
        }
        reached.push(process.ledger.calls() >= last);
        drop(process);
    }
    reached.pop();
    let faults = scan::faults(world).await;
    if faults.is_empty() { Ok(reached) } else { Err(faults.join("; ")) }
}

async fn unfinished(
    control: &tenantry_control::Control,
) -> Result<Vec<tenantry_control::view::OperationView>, String> {
    let (query, page) = Default::default();
    let all = control.operations(&Caller::system(), &query, &page).await.map_err(|e| e.to_string())?;
    Ok(all.data.into_iter().filter(|o| !o.done).collect())
}

#[tokio::test]
async fn every_step_fails_in_every_way() {
    let mut cases = 0;
    for step in STEPS {
        for how in How::ALL {
            for times in [1, u32::MAX] {
                for world in worlds().await {
                    let fault = Fault { step, forward: true, how, times };
                    world.plan.set(&world.clock, &[fault]);
                    play(&world, &[]).await.unwrap_or_else(|why| panic!("{fault:?}: {why}"));
                    cases += 1;
                }
            }
        }
    }
    report::add(&format!("crash: {cases} cases of a step that fails once or always, in every way"));
}

#[tokio::test]
async fn every_undo_fails_in_every_way() {
    let mut cases = 0;
    for step in ["identity", "config", "database", "billing"] {
        for how in How::ALL {
            for times in [1, u32::MAX] {
                for world in worlds().await {
                    let undo = Fault { step, forward: false, how, times };
                    let cause = Fault { step: "smoke_test", forward: true, how: How::Fatal, times: u32::MAX };
                    world.plan.set(&world.clock, &[undo, cause]);
                    play(&world, &[]).await.unwrap_or_else(|why| panic!("{undo:?}: {why}"));
                    cases += 1;
                }
            }
        }
    }
    report::add(&format!("crash: {cases} cases of an undo that fails once or always, in every way"));
}

#[tokio::test]
async fn every_call_is_made_twice() {
    for world in worlds().await {
        *world.plan.doubled.lock() = true;
        play(&world, &[]).await.unwrap();
    }
}

#[tokio::test]
async fn the_process_stops_at_every_commit_point() {
    let mut cases = 0;
    // Forward, and while it rolls back.
    for cause in [None, Some("smoke_test"), Some("database")] {
        for fault in LedgerFault::ALL {
            for first in 1.. {
                let mut reached = true;
                for world in worlds().await {
                    let told: Vec<Fault> = cause
                        .map(|step| Fault { step, forward: true, how: How::Fatal, times: u32::MAX })
                        .into_iter()
                        .collect();
                    world.plan.set(&world.clock, &told);
                    let lives = [Faults::from([(first, fault)])];
                    let told = format!("{fault:?} at call {first}, cause {cause:?}");
                    reached &=
                        play(&world, &lives).await.unwrap_or_else(|why| panic!("{told}: {why}")) == [true];
                    cases += 1;
                }
                if !reached {
                    break;
                }
            }
        }
    }
    report::add(&format!(
        "crash: {cases} cases of a process that stops, or whose ledger fails, at a commit point"
    ));
}

#[tokio::test]
async fn the_next_process_stops_as_well() {
    if !full() {
        tenantry_testkit::skip::skip("crash, second crashes", "they take minutes", "cargo xtask test --full");
        return;
    }
    let mut cases = 0;
    for fault in [LedgerFault::DieBefore, LedgerFault::DieAfter] {
        for first in 1.. {
            let mut any = false;
            for second in 1.. {
                let world = World::sqlite();
                world.plan.set(&world.clock, &[]);
                let lives = [Faults::from([(first, fault)]), Faults::from([(second, fault)])];
                let told = format!("{fault:?} at calls {first} and {second}");
                let reached = play(&world, &lives).await.unwrap_or_else(|why| panic!("{told}: {why}"));
                cases += 1;
                any |= reached[0];
                if reached != [true, true] {
                    break;
                }
            }
            if !any {
                break;
            }
        }
    }
    report::add(&format!("crash: {cases} cases of a second stop while the first is recovered from"));
}
