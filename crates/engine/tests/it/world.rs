//! The outside state of tests: things with owner tags, the ledger, and the script of attempts. It survives
//! every process, and records violations of the engine's rules.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;
use tenantry_engine::memory::MemoryLedger;
use tenantry_engine::{
    Attempt, Clock, Direction, Done, Ledger, Mode, Operation, Run, Step, StepState, Steps,
};
use tenantry_model::id::OperationId;
use tenantry_model::{Failure, Timestamp};
use tenantry_testkit::virtual_clock::VirtualClock;

use crate::plan::{self, step};

/// A write beside the ledger's rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// An attempt was intended.
    Intended(OperationId, String, Direction),
    /// A step succeeded.
    Made(OperationId, String),
    /// A step was compensated.
    Unmade(OperationId, String),
    /// The operation's state or `stuck` changed.
    Changed(OperationId, &'static str, bool),
    /// Claims a unique name; see `scene::Guarded`.
    Claim(String),
}

/// Script of one attempt.
#[derive(Clone, Debug)]
pub enum Act {
    /// Fails without an effect.
    Fail(Failure),
    /// Takes effect, then fails.
    FailAfter(Failure),
    /// Never answers, without an effect.
    Hang,
    /// Takes effect, then never answers.
    HangAfter,
    /// Succeeds after this time.
    Take(Duration),
    /// Fails with unknown outcome, and takes effect after this time.
    Late(Duration),
    /// Panics.
    Panic,
    /// Succeeds and claims this name.
    Claim(String),
    /// Commits a note, then never answers.
    NoteThenHang,
    /// Reports success without an effect.
    Lie,
    /// Succeeds and claims the next number of a chain, read from committed rows under a lock that it keeps.
    Link,
}

/// The outside state.
pub struct World {
    pub clock: VirtualClock,
    pub ledger: Arc<MemoryLedger<Effect>>,
    /// Lock of the chain.
    chain: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    script: BTreeMap<(String, &'static str), VecDeque<Act>>,
    /// Owner of each thing.
    things: BTreeMap<String, OperationId>,
    /// Late calls: created for this owner, or removed.
    late: Vec<(Timestamp, String, Option<OperationId>)>,
    active: BTreeSet<(OperationId, String)>,
    /// Highest number of attempts at the same time.
    peak: usize,
    log: Vec<String>,
    violations: Vec<String>,
}

fn word(direction: Direction) -> &'static str {
    if direction == Direction::Run { "do" } else { "undo" }
}

impl World {
    pub fn new(clock: VirtualClock) -> Arc<Self> {
        Arc::new(Self { clock, ledger: Arc::default(), chain: Arc::default(), state: Mutex::default() })
    }

    /// Scripts the next attempts at a step, in order; later ones succeed.
    pub fn script(&self, key: &str, direction: Direction, acts: impl IntoIterator<Item = Act>) {
        self.state.lock().script.entry((key.to_owned(), word(direction))).or_default().extend(acts);
    }

    /// One line per started attempt, in order: `do a at 0`.
    pub fn log(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }

    /// Highest number of attempts at the same time.
    pub fn peak(&self) -> usize {
        self.state.lock().peak
    }

    /// Names of the existing things.
    pub fn things(&self) -> Vec<String> {
        let mut state = self.state.lock();
        apply_late_calls(&mut state, self.clock.now());
        state.things.keys().cloned().collect()
    }

    /// Violations: two attempts at one step at the same time, or an attempt whose start is not committed.
    pub fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }

    /// Creates a thing of another owner.
    pub fn occupy(&self, name: &str) {
        self.state.lock().things.insert(name.to_owned(), OperationId::new());
    }

    /// Claimed names, in the order of their commits.
    pub fn claims(&self) -> Vec<String> {
        let claim = |effect| if let Effect::Claim(name) = effect { Some(name) } else { None };
        self.ledger.effects().into_iter().filter_map(claim).collect()
    }

    /// Steps whose effects say that they are made and not compensated.
    pub fn registry(&self) -> Vec<String> {
        let mut made = BTreeMap::<_, i32>::new();
        for effect in self.ledger.effects() {
            match effect {
                Effect::Made(id, key) => *made.entry((id, key)).or_default() += 1,
                Effect::Unmade(id, key) => *made.entry((id, key)).or_default() -= 1,
                _ => {}
            }
        }
        made.into_iter().filter(|(_, n)| *n > 0).map(|((_, key), _)| key).collect()
    }

    /// Checks the state after every operation is final: each step took effect exactly once or not at all.
    pub fn check(&self) -> Result<(), String> {
        if let Some(violation) = self.violations().first() {
            return Err(violation.clone());
        }
        let mut expected = Vec::new();
        for run in self.ledger.runs() {
            let operation = &run.operation;
            for step in &run.steps {
                let done =
                    step.state == StepState::Done && step.policy.wait.is_none() && step.child.is_none();
                if done && step.kind == "thing" {
                    expected.push(name(operation, step));
                }
                let made = |effect: &&Effect| **effect == Effect::Made(operation.id, step.key.clone());
                let times = self.ledger.effects().iter().filter(made).count();
                if done && times != 1 {
                    return Err(format!("step {} succeeded {times} times", step.key));
                }
            }
            if !operation.state.is_final() {
                return Err(format!("not final: {run:?}"));
            }
            if operation.wake_at.is_some() || !operation.idle {
                return Err(format!("final, but not idle or with a timer: {operation:?}"));
            }
        }
        expected.sort();
        let things = self.things();
        if things != expected {
            return Err(format!("there are {things:?} instead of {expected:?}"));
        }
        Ok(())
    }
}

/// Name of the thing that a step creates.
fn name(operation: &Operation, step: &Step) -> String {
    match step.input.get("name") {
        Some(name) => name.as_str().unwrap_or_default().to_owned(),
        None => format!("{} of {}", step.key, operation.id),
    }
}

/// Applies late calls that are due.
fn apply_late_calls(state: &mut State, now: Timestamp) {
    let (due, later) = std::mem::take(&mut state.late).into_iter().partition(|(at, ..)| *at <= now);
    state.late = later;
    for (_, name, owner) in due {
        match owner {
            Some(owner) => _ = state.things.entry(name).or_insert(owner),
            None => _ = state.things.remove(&name),
        }
    }
}

/// The steps of one process.
pub struct Scripted(pub Arc<World>);

/// Marks an attempt as running until it is dropped.
struct Active<'a>(&'a World, (OperationId, String));

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.state.lock().active.remove(&self.1);
    }
}

impl Scripted {
    fn act(&self, attempt: &Attempt) -> Result<(), Failure> {
        let world = &self.0;
        let mut state = world.state.lock();
        apply_late_calls(&mut state, world.clock.now());
        let name = name(&attempt.operation, &attempt.step);
        let owner = attempt.operation.id;
        match state.things.get(&name) {
            Some(other) if *other != owner => {
                return Err(Failure::fatal("name_taken", "owned by another operation"));
            }
            _ => {}
        }
        match attempt.direction {
            Direction::Run => state.things.insert(name, owner),
            Direction::Compensate => state.things.remove(&name),
        };
        Ok(())
    }

    async fn begin(&self, attempt: &Attempt) -> (Option<Act>, Active<'_>) {
        let world = &self.0;
        let (id, key) = (attempt.operation.id, attempt.step.key.clone());
        let wanted = match attempt.direction {
            Direction::Run => StepState::Running,
            Direction::Compensate => StepState::Undoing,
        };
        let stored = world.ledger.load(id).await.ok().flatten();
        let stored = stored.as_ref().and_then(|(run, _)| run.step(&key)).map(|step| step.state);
        let mut state = world.state.lock();
        // Transactional steps run before their commit; `check` counts their effects.
        if (!self.transactional(&attempt.step) || attempt.direction == Direction::Compensate)
            && stored != Some(wanted)
        {
            state.violations.push(format!(
                "an attempt to {} {key} runs, and the ledger has {stored:?}",
                word(attempt.direction)
            ));
        }
        if !state.active.insert((id, key.clone())) {
            state.violations.push(format!("two attempts at {key} run at once"));
        }
        state.peak = state.peak.max(state.active.len());
        let seconds = world.clock.now().since(plan::at(0)).as_secs_f64();
        state.log.push(format!("{} {key} at {seconds}", word(attempt.direction)));
        let act = state.script.get_mut(&(key.clone(), word(attempt.direction))).and_then(VecDeque::pop_front);
        (act, Active(world, (id, key)))
    }
}

#[async_trait]
impl Steps for Scripted {
    type Effect = Effect;

    fn transactional(&self, step: &Step) -> bool {
        step.kind == "registry"
    }

    fn intend(&self, run: &Run, step: &Step, direction: Direction, _: Timestamp) -> Vec<Effect> {
        let mut effects = vec![Effect::Intended(run.operation.id, step.key.clone(), direction)];
        if let (Some(name), Direction::Run) = (step.input.get("intends"), direction) {
            effects.push(Effect::Claim(name.as_str().unwrap_or_default().to_owned()));
        }
        effects
    }

    async fn attempt(&self, attempt: Attempt) -> Result<Done<Effect>, Failure> {
        let (mut act, _active) = self.begin(&attempt).await;
        // Transactional steps take no time and call nothing outside.
        if self.transactional(&attempt.step)
            && !matches!(act, None | Some(Act::Fail(_) | Act::Claim(_) | Act::Panic))
        {
            act = Some(Act::Fail(plan::busy()));
        }
        let (id, key) = (attempt.operation.id, attempt.step.key.clone());
        let mut effects = Vec::new();
        match &act {
            Some(Act::Fail(failure)) => return Err(failure.clone()),
            Some(Act::Hang) => self.0.clock.hang().await,
            Some(Act::Take(duration)) => self.0.clock.take(*duration).await,
            Some(Act::Panic) => panic!("scripted"),
            Some(Act::Claim(name)) => effects.push(Effect::Claim(name.clone())),
            Some(Act::Late(delay)) => {
                let at = self.0.clock.now() + *delay;
                let owner = (attempt.direction == Direction::Run).then_some(id);
                self.0.state.lock().late.push((at, name(&attempt.operation, &attempt.step), owner));
                return Err(Failure::unknown("lost", "connection lost"));
            }
            Some(Act::NoteThenHang) => {
                attempt.notes.note(json!({ "group": 42 })).await?;
                self.0.clock.hang().await;
            }
            Some(Act::Link) => {
                attempt.guards.keep(self.0.chain.clone().lock_owned().await);
                let link = format!("link {}", self.0.claims().len());
                // Until every other attempt waits for the lock.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                effects.push(Effect::Claim(link));
            }
            Some(Act::FailAfter(_) | Act::HangAfter | Act::Lie) | None => {}
        }
        if !self.transactional(&attempt.step) && !matches!(act, Some(Act::Lie)) {
            self.act(&attempt)?;
        }
        match act {
            Some(Act::FailAfter(failure)) => return Err(failure),
            Some(Act::HangAfter) => self.0.clock.hang().await,
            _ => {}
        }
        effects.push(match attempt.direction {
            Direction::Run => Effect::Made(id, key.clone()),
            Direction::Compensate => Effect::Unmade(id, key.clone()),
        });
        let needed: Vec<&String> =
            attempt.step.needs.iter().filter(|n| attempt.outputs.contains_key(*n)).collect();
        Ok(Done { output: json!({ "made": key, "saw": needed }), effects })
    }

    fn detach(&self, _: &Operation, detached: &Step) -> Run {
        let keys: Vec<String> = serde_json::from_value(detached.input["steps"].clone()).unwrap_or_default();
        let mut steps = Vec::<Step>::new();
        for key in &keys {
            let needs = steps.last().map(|s| s.key.clone()).into_iter().collect();
            steps.push(Step { needs, policy: detached.policy.clone(), ..step(key) });
        }
        steps.iter_mut().for_each(|step| step.policy.mode = Mode::Inline);
        plan::run(steps)
    }

    fn changed(&self, before: Option<&Operation>, after: &Run, _: Timestamp) -> Vec<Effect> {
        let now = &after.operation;
        let same = before.is_some_and(|old| (old.state, old.stuck) == (now.state, now.stuck));
        if same { Vec::new() } else { vec![Effect::Changed(now.id, now.state.as_str(), now.stuck)] }
    }
}
