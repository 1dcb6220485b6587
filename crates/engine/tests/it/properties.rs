//! Property test of the decisions: random plans with random results, signals, crashes and jumps of time. The
//! engine's invariants are checked after every decision.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use tenantry_engine::decide::{Decision, decide, recover, refuse, settle};
use tenantry_engine::retry::MAX_INTERRUPTIONS;
use tenantry_engine::{Direction, OperationState as Op, Run, Signal, SignalKind, Step, StepState as S};
use tenantry_model::id::OperationId;
use tenantry_model::{Failure, Timestamp};

use crate::plan::{
    Shape, approve, at, busy, lost, never, reject, run, signal, signal_from, skip, step, unknown_id, wrong,
};
use crate::story::INPUTS;

/// An event of an operation. A number selects among the candidates, modulo their count.
#[derive(Clone, Debug)]
enum Event {
    Ends(usize, Option<Failure>),
    Signals(Vec<Request>),
    Crash,
    Later(u64),
    NextTimer,
    ChildEnds(usize),
    /// The parent, if there is one, cancels the operation.
    ParentCancels,
}

#[derive(Clone, Debug)]
enum Request {
    Pause,
    Resume,
    Cancel,
    Retry,
    Skip(usize),
    Approve(usize),
    Reject(usize),
}

fn failures() -> impl Strategy<Value = Failure> {
    prop_oneof![
        4 => Just(busy()),
        4 => Just(wrong()),
        2 => Just(busy().after(Duration::from_secs(20))),
        4 => Just(lost()),
        1 => Just(never()),
        1 => Just(Failure::invalid("wrong", "will stay wrong")),
    ]
}

fn requests() -> impl Strategy<Value = Request> {
    prop_oneof![
        3 => Just(Request::Pause),
        4 => Just(Request::Resume),
        1 => Just(Request::Cancel),
        3 => Just(Request::Retry),
        1 => any::<usize>().prop_map(Request::Skip),
        3 => any::<usize>().prop_map(Request::Approve),
        1 => any::<usize>().prop_map(Request::Reject),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (any::<usize>(), proptest::option::weighted(0.4, failures())).prop_map(|(i, f)| Event::Ends(i, f)),
        3 => proptest::collection::vec(requests(), 1..4).prop_map(Event::Signals),
        1 => Just(Event::Crash),
        2 => (0u64..40).prop_map(Event::Later),
        2 => Just(Event::NextTimer),
        1 => any::<usize>().prop_map(Event::ChildEnds),
        1 => Just(Event::ParentCancels),
    ]
}

/// Plans in which each step may need earlier ones.
fn plans() -> impl Strategy<Value = Vec<Step>> {
    let one = (any::<u8>(), 0u32..3, 0u64..2, 0u64..2, 0u8..12, any::<bool>());
    proptest::collection::vec(one, 1..8).prop_map(|shapes| {
        let key = |i: usize| format!("s{i}");
        let steps = shapes.iter().enumerate().map(|(i, (needs, retries, delay, in_flight, kind, park))| {
            let needs: Vec<String> = (0..i).filter(|j| needs >> j & 1 == 1).map(key).collect();
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            let plain = step(&key(i))
                .needs(&needs)
                .retries(*retries)
                .retry_for(u64::from(*retries) * 20)
                .backoff(delay * 5_000)
                .in_flight(in_flight * 15);
            let shaped = match kind {
                0 => plain.approval(),
                1 => plain.timer(30),
                2 => plain.timer(0),
                3 | 4 => plain.detached(&[]),
                _ => plain,
            };
            if *park { shaped.park() } else { shaped }
        });
        steps.collect()
    })
}

/// The operation, its running attempts, and its history.
struct World {
    run: Run,
    now: Timestamp,
    in_flight: BTreeSet<(String, bool)>,
    /// Steps that may have created something outside.
    existing: BTreeSet<String>,
    /// Running children by step.
    children: BTreeMap<String, OperationId>,
    done: BTreeSet<String>,
    /// Latest failure of each step.
    failed_at: BTreeMap<String, Timestamp>,
    /// Whether the parent has cancelled, and whether it has its answer.
    cancelled_by_parent: bool,
    answered: bool,
}

impl World {
    fn new(steps: Vec<Step>, parent: Option<OperationId>) -> Self {
        let (in_flight, existing, children, done, failed_at) = Default::default();
        let (cancelled_by_parent, answered) = Default::default();
        let run = run(steps);
        let mut world = Self {
            run,
            now: at(0),
            in_flight,
            existing,
            children,
            done,
            failed_at,
            cancelled_by_parent,
            answered,
        };
        world.run.operation.parent = parent;
        world.run.operation.expected_by = Some(at(100));
        world.decide(&[]);
        world
    }

    fn decide(&mut self, signals: &[Signal]) {
        let before = self.run.clone();
        let decision = decide(&mut self.run, signals, self.now);
        self.check(&before, &decision, signals);
        // Revoked attempts are cancelled before new ones start.
        let run = &self.run;
        self.in_flight.retain(|(key, forward)| {
            let wanted = if *forward { S::Running } else { S::Undoing };
            run.step(key).is_some_and(|s| s.state == wanted)
        });
        for (key, direction) in &decision.start {
            let began = self.in_flight.insert((key.clone(), *direction == Direction::Run));
            assert!(began, "two attempts at {key} at the same time");
            if *direction == Direction::Run {
                self.existing.insert(key.clone());
            }
        }
        for key in &decision.detached {
            let child = self.run.step(key).unwrap().child.unwrap();
            assert!(self.children.insert(key.clone(), child).is_none(), "{key} has two children");
        }
        self.answered |= decision.signals.iter().any(|(_, kind)| *kind == SignalKind::ChildFinished);
        for step in &self.run.steps {
            if step.state == S::Done {
                self.done.insert(step.key.clone());
            }
        }
        self.check_after();
        let mut again = self.run.clone();
        let decided = decide(&mut again, &[], self.now);
        assert_eq!((decided, &again), (Decision::default(), &self.run), "deciding again changes something");
    }

    /// Checks one decision.
    fn check(&self, before: &Run, decision: &Decision, signals: &[Signal]) {
        for (key, direction) in &decision.start {
            let step = self.run.step(key).unwrap();
            let over = |need: &String| self.run.step(need).unwrap().state.is_over();
            match direction {
                Direction::Run => {
                    assert!(step.needs.iter().all(over), "{key} starts before its needs are over");
                    assert!(!self.done.contains(key), "{key} was done and runs again");
                    assert!(step.policy.wait.is_none() && step.child.is_none());
                    assert_eq!(self.run.operation.state, Op::Running);
                }
                Direction::Compensate => {
                    let depends = |s: &&Step| s.needs.contains(key) && s.state != S::Undone;
                    let dependant = self.run.steps.iter().find(depends).map(|s| &s.key);
                    assert_eq!(dependant, None, "depends on {key}, which is compensated");
                }
            }
        }
        if before.operation.state.is_final() && signals.is_empty() {
            assert_eq!(&self.run, before, "a final operation has changed");
        }
        for (old, new) in before.steps.iter().zip(&self.run.steps) {
            assert_eq!(
                (&old.policy, &old.needs, &old.input),
                (&new.policy, &new.needs, &new.input),
                "the plan changed"
            );
        }
    }

    /// Checks the state after a decision.
    fn check_after(&self) {
        let operation = &self.run.operation;
        if self.cancelled_by_parent && operation.state.is_final() {
            assert!(self.answered, "the parent never gets its answer");
            assert_ne!(operation.state, Op::Succeeded);
        }
        for step in &self.run.steps {
            let answers = step.error.as_ref().map_or(0, |error| error.wrong_answers);
            assert!(answers <= step.policy.max_retries + 1, "{} has {answers} wrong answers", step.key);
            if let (S::Retrying | S::UndoPending, Some(since), 0, Some(error)) =
                (step.state, step.failing_since, answers, &step.error)
            {
                let policy = Duration::from_millis(step.policy.retry_for_ms.unwrap());
                assert!(error.may_retry(), "{} retries {error}", step.key);
                assert!(self.failed_at[&step.key].since(since) < policy, "{} is retried too long", step.key);
            }
            assert!(step.interruptions <= MAX_INTERRUPTIONS + 1);
            if matches!(step.state, S::Running | S::Undoing) && step.child.is_none() {
                let running = (step.key.clone(), step.state == S::Running);
                assert!(self.in_flight.contains(&running), "{} counts as running", step.key);
            }
        }
        let active = !self.in_flight.is_empty();
        assert_eq!(operation.idle, !active, "idle");
        assert_eq!(operation.finished_at.is_some(), operation.state.is_final());
        match operation.state {
            Op::Succeeded => assert!(self.run.steps.iter().all(|s| s.state.is_over())),
            Op::RolledBack | Op::Cancelled => {
                assert!(self.run.steps.iter().all(|s| s.state == S::Undone));
                assert_eq!(self.existing, BTreeSet::new(), "something exists outside");
                assert_eq!(self.children, BTreeMap::new(), "a child is not final");
                assert_eq!(operation.state == Op::Cancelled, operation.cancelled);
            }
            _ => assert!(self.can_continue(), "stalled: {:?}", self.run),
        }
        if operation.state.is_final() {
            assert_eq!((active, operation.wake_at), (false, None));
        }
        if let Some(wake) = operation.wake_at {
            assert!(wake > self.now, "wakes immediately, for ever");
        }
    }

    /// True when the operation continues by itself or after a signal.
    fn can_continue(&self) -> bool {
        let operation = &self.run.operation;
        let asks = |s: &Step| s.state == S::Waiting && s.due_at.is_none();
        let child = |s: &Step| s.state == S::Undoing && self.children.contains_key(&s.key);
        !self.in_flight.is_empty()
            || operation.wake_at.is_some()
            || operation.state == Op::Paused
            || operation.state == Op::NeedsAttention && refuse(&self.run, &SignalKind::Retry).is_ok()
            || self.run.steps.iter().any(|s| asks(s) || child(s))
    }

    fn ends(&mut self, which: usize, failure: Option<Failure>) {
        let Some((key, forward)) = self.in_flight.iter().nth(which % self.in_flight.len().max(1)).cloned()
        else {
            return;
        };
        self.in_flight.remove(&(key.clone(), forward));
        let repeats =
            self.run.step(&key).unwrap().uncertain && self.run.step(&key).unwrap().policy.in_flight_ms > 0;
        if !forward && failure.is_none() && !repeats {
            self.existing.remove(&key);
        }
        let direction = if forward { Direction::Run } else { Direction::Compensate };
        let result = failure.map_or_else(|| Ok(json!({ "made": key })), Err);
        if result.is_err() {
            self.failed_at.insert(key.clone(), self.now);
        }
        settle(&mut self.run, &key, direction, result, self.now, INPUTS);
        self.decide(&[]);
    }

    fn send(&mut self, requests: &[Request]) {
        let key = |i: &usize| format!("s{}", i % self.run.steps.len());
        let signals: Vec<Signal> = requests
            .iter()
            .map(|request| match request {
                Request::Pause => SignalKind::Pause,
                Request::Resume => SignalKind::Resume,
                Request::Cancel => SignalKind::Cancel,
                Request::Retry => SignalKind::Retry,
                Request::Skip(i) => skip(&key(i)),
                Request::Approve(i) => approve(&key(i)),
                Request::Reject(i) => reject(&key(i)),
            })
            .map(signal)
            .collect();
        // A skipped compensation counts as done.
        for request in requests {
            if let Request::Skip(i) = request
                && self.run.step(&key(i)).is_some_and(|s| s.state == S::UndoFailed)
            {
                let key = key(i);
                self.existing.remove(&key);
            }
        }
        self.decide(&signals);
    }

    fn child_ends(&mut self, which: usize) {
        let cancelled: Vec<String> = self
            .children
            .keys()
            .filter(|key| self.run.step(key).is_some_and(|s| s.state == S::Undoing))
            .cloned()
            .collect();
        if let Some(key) = cancelled.get(which % cancelled.len().max(1)) {
            let child = self.children.remove(key).unwrap();
            self.decide(&[signal_from(child, SignalKind::ChildFinished)]);
        }
    }

    fn crash(&mut self) {
        self.in_flight.clear();
        let epoch = self.run.operation.epoch + 1;
        recover(&mut self.run, epoch, self.now);
        let once = self.run.clone();
        recover(&mut self.run, epoch, self.now);
        assert_eq!(self.run, once, "recovering again changes something");
        self.decide(&[]);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Ends(which, failure) => self.ends(which, failure),
            Event::Signals(requests) => self.send(&requests),
            Event::Crash => self.crash(),
            Event::Later(seconds) => {
                self.now = self.now + Duration::from_secs(seconds);
                self.decide(&[]);
            }
            Event::NextTimer => {
                self.now = self.run.operation.wake_at.unwrap_or(self.now);
                self.decide(&[]);
            }
            Event::ChildEnds(which) => self.child_ends(which),
            Event::ParentCancels => {
                if let Some(parent) = self.run.operation.parent {
                    self.cancelled_by_parent = true;
                    self.answered = false;
                    self.decide(&[signal_from(parent, SignalKind::Cancel)]);
                }
            }
        }
    }

    /// From here on every attempt succeeds, and the operator sends every needed signal.
    fn finish(&mut self) {
        for _ in 0..1000 {
            let waiting = self.run.steps.iter().position(|s| s.state == S::Waiting && s.due_at.is_none());
            match self.run.operation.state {
                state if state.is_final() => return,
                _ if !self.in_flight.is_empty() => self.ends(0, None),
                Op::Paused => self.send(&[Request::Resume]),
                Op::NeedsAttention => self.send(&[Request::Retry]),
                _ if waiting.is_some() => self.send(&[Request::Approve(waiting.unwrap_or(0))]),
                _ if self.run.operation.wake_at.is_some() => self.happen(Event::NextTimer),
                _ => self.child_ends(0),
            }
        }
        panic!("never ends: {:?}", self.run);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_ends_and_keeps_the_invariants(
        steps in plans(),
        is_child in any::<bool>(),
        events in proptest::collection::vec(events(), 0..60),
    ) {
        let mut world = World::new(steps, is_child.then(unknown_id));
        for event in events {
            world.happen(event);
        }
        world.finish();
    }
}
