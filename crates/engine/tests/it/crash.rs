//! Crashes and failures at every call of the ledger, before and after it, once and twice. Afterwards every
//! operation is final, and each step took effect exactly once or not at all.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tenantry_engine::{
    CommitError, Direction, Executor, Ledger, OperationState, Run, SignalKind, Step, StepState, Waiting,
};
use tenantry_testkit::crash_ledger::{Fault, Stage, everywhere};

use crate::plan::{self, Shape, approve, busy, lost, never, signal, step};
use crate::scene::seconds;
use crate::world::{Act, Effect, Scripted, World};

/// One scenario: plans, scripted attempts, and first signals.
pub struct Story {
    pub world: Arc<World>,
    pub runs: Vec<Run>,
    /// First signals to the first operation.
    pub signals: Mutex<Vec<SignalKind>>,
    /// The final state that the first operation must have, if only one is correct.
    pub end: Option<OperationState>,
}

#[async_trait]
impl Stage for Story {
    type Steps = Scripted;

    fn ledger(&self) -> Arc<dyn Ledger<Effect>> {
        self.world.ledger.clone()
    }

    fn steps(&self) -> Arc<Scripted> {
        Arc::new(Scripted(self.world.clone()))
    }

    async fn begin(&self, executor: &Executor<Scripted>) -> Result<(), CommitError> {
        for run in &self.runs {
            match executor.submit(run.clone(), vec![]).await {
                // A former attempt has committed it.
                Ok(_) | Err(CommitError::Stale) => {}
                Err(refused) => return Err(refused),
            }
        }
        loop {
            let Some(kind) = self.signals.lock().first().cloned() else { return Ok(()) };
            executor.signal(self.runs[0].operation.id, signal(kind), vec![]).await?;
            self.signals.lock().remove(0);
        }
    }

    async fn attend(&self, executor: &Executor<Scripted>, waiting: &[Waiting]) -> Result<bool, CommitError> {
        let mut helped = false;
        for run in self.world.ledger.runs() {
            if !waiting.iter().any(|w| w.id == run.operation.id) {
                continue;
            }
            let asks = run.steps.iter().find(|s| s.state == StepState::Waiting);
            let kind = match (run.operation.state, asks) {
                (OperationState::Paused, _) => SignalKind::Resume,
                (OperationState::NeedsAttention, _) => SignalKind::Retry,
                (_, Some(step)) => approve(&step.key),
                _ => continue,
            };
            executor.signal(run.operation.id, signal(kind), vec![]).await?;
            helped = true;
        }
        Ok(helped)
    }

    async fn check(&self) -> Result<(), String> {
        self.world.check()?;
        let first = self.runs[0].operation.id;
        let run = self.world.ledger.runs().into_iter().find(|run| run.operation.id == first);
        let state = run.map(|run| run.operation.state);
        if self.end.is_some() && state != self.end {
            return Err(format!("the first operation is {state:?}"));
        }
        Ok(())
    }
}

type Script = Vec<(&'static str, Direction, Vec<Act>)>;

/// Runs a plan with every fault at every call, and prints the number of cases.
async fn survives(
    name: &str,
    steps: Vec<Step>,
    script: Script,
    signals: Vec<SignalKind>,
    end: Option<OperationState>,
) {
    let cases = everywhere(
        async |clock| {
            let world = World::new(clock);
            for (key, direction, acts) in script.clone() {
                world.script(key, direction, acts);
            }
            let runs = vec![plan::run(steps.clone())];
            Story { world, runs, signals: Mutex::new(signals.clone()), end }
        },
        &Fault::ALL,
        true,
    )
    .await;
    let cases = cases.unwrap_or_else(|why| panic!("{name}: {why}"));
    assert!(cases > 20, "{name}: only {cases} cases");
    println!("{name}: {cases} cases");
}

fn onboarding() -> Vec<Step> {
    vec![
        step("reserve").registry(),
        step("database").needs(&["reserve"]).timeout(30).in_flight(20),
        step("bucket").needs(&["reserve"]).timeout(30),
        step("config").registry().needs(&["reserve"]),
        step("bill").detached(&["customer", "charge"]).needs(&["reserve"]),
        step("smoke").needs(&["database", "bucket", "config"]),
        step("activate").registry().needs(&["smoke"]),
    ]
}

#[tokio::test]
async fn crashes_of_a_successful_operation() {
    survives("success", onboarding(), vec![], vec![], Some(OperationState::Succeeded)).await;
}

#[tokio::test]
async fn crashes_with_retries() {
    let script = vec![
        ("database", Direction::Run, vec![Act::FailAfter(lost()), Act::HangAfter]),
        ("bucket", Direction::Run, vec![Act::Fail(busy().after(seconds(30)))]),
        ("charge", Direction::Run, vec![Act::Fail(busy()), Act::Hang]),
        ("activate", Direction::Run, vec![Act::Fail(busy())]),
    ];
    survives("retries", onboarding(), script, vec![], Some(OperationState::Succeeded)).await;
}

#[tokio::test]
async fn crashes_with_a_permanent_failure() {
    let script = vec![
        (
            "smoke",
            Direction::Run,
            vec![Act::FailAfter(never()), Act::FailAfter(never()), Act::FailAfter(never())],
        ),
        ("database", Direction::Compensate, vec![Act::Fail(busy())]),
    ];
    survives("permanent failure", onboarding(), script, vec![], None).await;
}

#[tokio::test]
async fn crashes_with_failed_compensations() {
    let script = vec![
        ("smoke", Direction::Run, vec![Act::Fail(never()), Act::Fail(never()), Act::Fail(never())]),
        ("bucket", Direction::Compensate, vec![Act::Fail(never())]),
        ("charge", Direction::Compensate, vec![Act::Fail(never())]),
    ];
    survives("failed compensations", onboarding(), script, vec![], None).await;
}

#[tokio::test]
async fn crashes_of_a_cancelled_operation() {
    let script = vec![("database", Direction::Run, vec![Act::HangAfter])];
    survives("cancel", onboarding(), script, vec![SignalKind::Cancel], None).await;
}

#[tokio::test]
async fn crashes_with_pauses_and_waits() {
    let steps = vec![
        step("ask").approval(),
        step("a").needs(&["ask"]),
        step("hold").timer(86_400).needs(&["a"]),
        step("b").needs(&["hold"]).park(),
    ];
    let script = vec![("b", Direction::Run, vec![Act::Fail(never())])];
    let signals = vec![SignalKind::Pause, SignalKind::Resume, SignalKind::Pause];
    survives("pause", steps, script, signals, Some(OperationState::Succeeded)).await;
}

#[tokio::test]
async fn crashes_with_late_effects() {
    let steps = vec![step("a"), step("b").needs(&["a"]).retry_for(0).in_flight(60)];
    let script = vec![(
        "b",
        Direction::Run,
        vec![Act::Late(seconds(50)), Act::Late(seconds(50)), Act::Late(seconds(50))],
    )];
    survives("late", steps, script, vec![], None).await;
}

#[tokio::test]
async fn crashes_of_several_operations() {
    let cases = everywhere(
        async |clock| {
            let world = World::new(clock);
            let plan = || [step("a"), step("r").registry().needs(&["a"]), step("b").needs(&["r"])];
            let runs = (0..5).map(|_| plan::run(plan())).collect();
            Story { world, runs, signals: Mutex::default(), end: Some(OperationState::Succeeded) }
        },
        &Fault::ALL,
        false,
    )
    .await;
    println!("many: {} cases", cases.unwrap());
}

/// The harness detects a compensation that reports success without an effect.
#[tokio::test]
async fn the_harness_detects_a_violation() {
    let detected = everywhere(
        async |clock| {
            let world = World::new(clock);
            world.script("b", Direction::Run, [Act::Fail(never())]);
            world.script("a", Direction::Compensate, [Act::Lie]);
            let runs = vec![plan::run([step("a"), step("b").needs(&["a"])])];
            Story { world, runs, signals: Mutex::default(), end: None }
        },
        &Fault::ALL,
        false,
    )
    .await;
    assert!(detected.is_err_and(|why| why.contains("there are [\"a of")));
}
