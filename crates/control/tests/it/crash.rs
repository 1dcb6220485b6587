//! Crash tests of onboarding: every step fails in every way, every call is repeated, and the process stops at
//! every commit point. Afterwards every tenant is either active with each of its resources exactly once, or
//! rolled back completely.
//!
//! There is one story per template. `cargo xtask test --full` runs all cases on both stores; a plain run
//! takes a part of them on SQLite. Each test has one thread, so that ready tasks run before the virtual clock
//! advances and every run is the same.

use serde_json::Value;
use tenantry_control::view::OperationView;
use tenantry_control::{Caller, Control, ErrorKind, IdempotencyKey, OperationQuery, PageQuery};
use tenantry_engine::{OperationState, SignalKind, StepState};
use tenantry_testkit::crash_ledger::{Fault as LedgerFault, Faults};
use tenantry_testkit::report;

use crate::faulty::{Calls, Fault, How};
use crate::scan;
use crate::story::{self, Story};
use crate::world::{Process, World, request};

/// Most rounds of manual signals during one process; more mean that the operation makes no progress.
const PATIENCE: usize = 20;

pub fn full() -> bool {
    std::env::var_os("TENANTRY_TEST_FULL").is_some()
}

/// Every `stride`th commit point, with another first one for each `lane`.
pub fn every(stride: u64, lane: usize) -> impl Iterator<Item = u64> {
    (1 + lane as u64 % stride..).step_by(usize::try_from(stride).expect("a small number"))
}

/// Worlds on both stores under `--full`, otherwise one on SQLite.
pub async fn worlds() -> Vec<World> {
    let mut worlds = vec![World::sqlite().await];
    if full() {
        worlds.extend(World::postgres().await);
    }
    worlds
}

/// Runs a case: one process after another until all operations have ended. Returns for each process whether
/// it reached all of its faults.
pub async fn play(
    world: &World,
    story: &Story,
    faults: &[Fault],
    lives: &[Faults],
    cancel: bool,
) -> Result<Vec<bool>, String> {
    world.plan.set(&world.clock, faults);
    let document = request("Crash", &story.plan);
    let mut begun = false;
    let reached = in_lives(world, lives, async |process| {
        live(world, process, story, &mut begun, cancel, &document).await
    });
    let reached = reached.await?;
    let faults = scan::faults(world).await;
    if faults.is_empty() { Ok(reached) } else { Err(faults.join("\n")) }
}

/// Starts one process after another, each with its faults, and a last one without any.
pub async fn in_lives(
    world: &World,
    lives: &[Faults],
    mut live: impl AsyncFnMut(&Process) -> Result<(), String>,
) -> Result<Vec<bool>, String> {
    let mut reached = Vec::new();
    for faults in lives.iter().chain([&Faults::new()]) {
        let last = faults.keys().last().copied().unwrap_or(0);
        let process = match world.start(faults.clone()).await {
            Ok(process) => process,
            // The ledger died or did not answer at the start.
            Err(_) if !faults.is_empty() => {
                reached.push(true);
                continue;
            }
            Err(error) => return Err(format!("does not start: {error:?}")),
        };
        tokio::select! {
            biased;
            () = process.ledger.died() => {}
            lived = live(&process) => lived?,
        }
        reached.push(process.ledger.calls() >= last);
    }
    reached.pop();
    Ok(reached)
}

/// Runs one process until all operations have ended. Waiting steps are approved, and operations that need
/// attention are retried after the fault is removed; with `cancel`, an onboarding that needs attention is
/// cancelled instead.
pub async fn live(
    world: &World,
    process: &Process,
    story: &Story,
    begun: &mut bool,
    cancel: bool,
    document: &Value,
) -> Result<(), String> {
    let (control, caller) = (&process.control, Caller::system());
    while !*begun {
        match control.create_tenant(&caller, document, IdempotencyKey::parse("crash").ok()).await {
            Ok(_) => *begun = true,
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => return Err(format!("refused: {error}")),
        }
    }
    people(world, control, cancel).await.map_err(|why| format!("{why} in {}", story.plan))
}

/// Sends the signals of an operator until all operations have ended.
pub async fn people(world: &World, control: &Control, cancel: bool) -> Result<(), String> {
    let caller = Caller::system();
    for _ in 0..PATIENCE {
        world.quiet().await;
        let open = unfinished(control).await?;
        if open.is_empty() {
            return Ok(());
        }
        let mut asked = 0;
        for operation in &open {
            let Some(signal) = answer(world, operation, cancel) else { continue };
            asked += 1;
            match control.signal(&caller, operation.id, signal, None).await {
                Ok(_) => {}
                // The outcome is unknown; a conflict means that the signal was received.
                Err(error) if [ErrorKind::Unavailable, ErrorKind::Conflict].contains(&error.kind()) => {}
                Err(error) => return Err(format!("a signal is rejected: {error:?}")),
            }
        }
        if asked == 0 {
            return Err(format!("no operation makes progress: {}", told(&open)));
        }
    }
    Err(format!(
        "operations still need attention after {PATIENCE} rounds: {}",
        told(&unfinished(control).await?)
    ))
}

/// The signal that an operation waits for, if any.
fn answer(world: &World, operation: &OperationView, cancel: bool) -> Option<SignalKind> {
    let steps = || operation.steps.iter();
    match operation.state {
        OperationState::NeedsAttention => {
            let undoing = steps().any(|step| step.state == StepState::UndoFailed);
            if cancel && !undoing && operation.parent_id.is_none() {
                return Some(SignalKind::Cancel);
            }
            // The fault has been repaired.
            world.plan.set(&world.clock, &[]);
            Some(SignalKind::Retry)
        }
        _ => steps()
            .find(|step| step.state == StepState::Waiting && step.operation_id.is_none())
            .map(|step| SignalKind::Approve { step: step.key.clone() }),
    }
}

async fn unfinished(control: &Control) -> Result<Vec<OperationView>, String> {
    let (mut open, mut cursor) = (Vec::new(), None);
    loop {
        let page = PageQuery::new(Some(100), cursor).map_err(|e| e.to_string())?;
        let all = control.operations(&Caller::system(), &OperationQuery::default(), &page).await;
        let all = all.map_err(|e| e.to_string())?;
        open.extend(all.data.into_iter().filter(|operation| !operation.done));
        match all.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(open),
        }
    }
}

fn told(open: &[OperationView]) -> String {
    let states = open.iter().map(|o| {
        let steps: Vec<_> = o.steps.iter().map(|s| (&s.key, s.state, s.attempts, s.due_at)).collect();
        format!("{} {:?} v{} {steps:?} {:?}", o.kind, o.state, o.version, o.error)
    });
    states.collect::<Vec<_>>().join("; ")
}

pub fn smoke_test_fails() -> Fault {
    Fault::new("smoke_test", true, How::Fatal, u32::MAX)
}

/// All kinds of failures, once and always. A plain run takes a third of them, another third for each `lane`.
pub fn ways(lane: usize) -> impl Iterator<Item = (How, u32)> {
    let all = How::ALL.into_iter().flat_map(|how| [(how, 1), (how, u32::MAX)]);
    all.enumerate().filter(move |(n, _)| full() || (n + lane).is_multiple_of(3)).map(|(_, way)| way)
}

#[tokio::test]
async fn every_step_fails_in_every_way() {
    let mut cases = 0;
    for story in story::all().await {
        for (lane, step) in story.calls().enumerate() {
            for (how, times) in ways(lane) {
                for world in worlds().await {
                    let fault = Fault::new(step, true, how, times);
                    let played = play(&world, &story, std::slice::from_ref(&fault), &[], false).await;
                    played.unwrap_or_else(|why| panic!("{}: {fault:?}: {why}", story.plan));
                    assert!(world.plan.struck() > 0, "{}: {fault:?} never struck", story.plan);
                    cases += 1;
                }
            }
        }
    }
    report::add(&format!("crash: {cases} cases of a step that fails once or always, in every way"));
}

#[tokio::test]
async fn every_compensation_fails_in_every_way() {
    let mut cases = 0;
    for story in story::all().await {
        for (lane, step) in story.undone().enumerate() {
            for (how, times) in ways(lane) {
                for world in worlds().await {
                    let undo = Fault::new(step, false, how, times);
                    let faults = [undo.clone(), smoke_test_fails()];
                    let played = play(&world, &story, &faults, &[], story.parks()).await;
                    played.unwrap_or_else(|why| panic!("{}: {undo:?}: {why}", story.plan));
                    assert!(world.plan.struck() > 1, "{}: {undo:?} never struck", story.plan);
                    cases += 1;
                }
            }
        }
    }
    report::add(&format!("crash: {cases} cases of an undo that fails once or always, in every way"));
}

/// Repeats every provider call of an onboarding, when it succeeds and when it is rolled back. Returns the
/// number of cases.
pub async fn twice(story: &Story, calls: Calls, worlds: impl AsyncFn() -> Vec<World>) -> usize {
    let mut cases = 0;
    for cause in [None, Some(smoke_test_fails())] {
        for world in worlds().await {
            *world.plan.calls.lock() = calls;
            let faults: Vec<Fault> = cause.clone().into_iter().collect();
            let played = play(&world, story, &faults, &[], story.parks()).await;
            played.unwrap_or_else(|why| panic!("{}: {calls:?}: {why}", story.plan));
            cases += 1;
        }
    }
    cases
}

#[tokio::test]
async fn every_call_is_made_twice() {
    let mut cases = 0;
    for story in story::all().await {
        for calls in [Calls::InTurn, Calls::AtOnce] {
            cases += twice(&story, calls, worlds).await;
        }
    }
    report::add(&format!("crash: {cases} cases in which every call is made twice, in turn or at once"));
}

/// Stops the process, or fails its ledger, at every commit point of an onboarding with this fault. Returns
/// the number of cases.
pub async fn stops_everywhere(
    story: &Story,
    cause: Option<Fault>,
    stride: u64,
    worlds: impl AsyncFn() -> Vec<World>,
) -> usize {
    let mut cases = 0;
    let faults: Vec<Fault> = cause.into_iter().collect();
    for (lane, fault) in LedgerFault::ALL.into_iter().enumerate() {
        for first in every(stride, lane) {
            let mut reached = true;
            for world in worlds().await {
                let lives = [Faults::from([(first, fault)])];
                let played = play(&world, story, &faults, &lives, !faults.is_empty() && story.parks()).await;
                let told = || format!("{}: {fault:?} at call {first} with {faults:?}", story.plan);
                reached &= played.unwrap_or_else(|why| panic!("{}: {why}", told())) == [true];
                cases += 1;
            }
            if !reached {
                break;
            }
        }
    }
    cases
}

#[tokio::test]
async fn the_process_stops_at_every_commit_point() {
    let mut cases = 0;
    for story in story::all().await {
        cases += stops_everywhere(&story, None, if full() { 1 } else { 3 }, worlds).await;
    }
    report::add(&format!(
        "crash: {cases} cases of a process that stops, or whose ledger fails, at a commit point"
    ));
}

#[tokio::test]
async fn the_process_stops_at_every_commit_point_of_a_rollback() {
    let mut cases = 0;
    for story in story::all().await {
        // A rollback is much the same for every cause, so only one cause is tested at every commit point.
        for step in story.causes() {
            let stride = match (full(), step == "smoke_test") {
                (true, true) => 1,
                (true, false) => 3,
                (false, true) => 5,
                (false, false) => continue,
            };
            let cause = Fault::new(step, true, How::Fatal, u32::MAX);
            cases += stops_everywhere(&story, Some(cause), stride, worlds).await;
        }
    }
    report::add(&format!(
        "crash: {cases} cases of a process that stops, or whose ledger fails, at a commit point of a rollback"
    ));
}

/// Stops the process at every commit point, and the next process at every `stride`th commit point of the
/// recovery.
async fn stops_twice(fault: LedgerFault, stride: u64) {
    if !full() {
        tenantry_testkit::skip::skip("crash, second crashes", "they take minutes", "cargo xtask test --full");
        return;
    }
    let mut cases = 0;
    for story in story::all().await {
        for first in 1_usize.. {
            let mut any = false;
            for second in every(stride, first) {
                let world = World::sqlite().await;
                let lives = [Faults::from([(first as u64, fault)]), Faults::from([(second, fault)])];
                let played = play(&world, &story, &[], &lives, false).await;
                let told = || format!("{}: {fault:?} at calls {first} and {second}", story.plan);
                let reached = played.unwrap_or_else(|why| panic!("{}: {why}", told()));
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
    report::add(&format!(
        "crash: {cases} cases of a second stop, {fault:?}, while the first is recovered from"
    ));
}

#[tokio::test]
async fn the_next_process_stops_as_well() {
    stops_twice(LedgerFault::DieAfter, 1).await;
}

/// Before a commit the ledger is as after the previous one; only the work of the process since then differs.
#[tokio::test]
async fn the_next_process_stops_before_a_commit() {
    stops_twice(LedgerFault::DieBefore, 3).await;
}
