//! Builders of plans, signals and failures for tests: `step("b").needs(&["a"]).park()`.

use std::time::Duration;

use serde_json::{Value, json};
use tenantry_engine::{
    Mode, OnFailure, Operation, OperationState, Policy, Run, Signal, SignalKind, Step, StepState, Wait,
};
use tenantry_model::id::{Id, OperationId, SignalId};
use tenantry_model::{Failure, Timestamp};

/// That many seconds after the start of the virtual clock.
pub fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000) + Duration::from_secs(seconds)
}

/// A step that creates a thing outside the ledger, retried without delay.
pub fn step(key: &str) -> Step {
    Step {
        key: key.to_owned(),
        position: 0,
        kind: "thing".to_owned(),
        provider: "scripted".to_owned(),
        needs: Vec::new(),
        policy: Policy { backoff_ms: 0, ..Policy::default() },
        input: Value::Null,
        state: StepState::Pending,
        attempts: 0,
        interruptions: 0,
        failing_since: None,
        due_at: None,
        started_at: None,
        finished_at: None,
        output: Value::Null,
        error: None,
        uncertain: false,
        note: None,
        child: None,
    }
}

/// Changes to the step of [`step`].
pub trait Shape: Sized {
    /// Starts after these steps.
    fn needs(self, keys: &[&str]) -> Self;
    /// Only computes effects (a transactional step).
    fn registry(self) -> Self;
    /// Changes the policy.
    fn with(self, change: impl FnOnce(&mut Policy)) -> Self;
    /// Its input.
    fn input(self, input: Value) -> Self;

    fn park(self) -> Self {
        self.with(|p| p.on_failure = OnFailure::Park)
    }
    fn retries(self, retries: u32) -> Self {
        self.with(|p| p.max_retries = retries)
    }
    /// Waits for a dependency for this number of seconds.
    fn retry_for(self, seconds: u64) -> Self {
        self.with(|p| p.retry_for_ms = Some(seconds * 1000))
    }
    fn backoff(self, ms: u64) -> Self {
        self.with(|p| p.backoff_ms = ms)
    }
    fn timeout(self, seconds: u64) -> Self {
        self.with(|p| p.timeout_ms = seconds * 1000)
    }
    fn in_flight(self, seconds: u64) -> Self {
        self.with(|p| p.in_flight_ms = seconds * 1000)
    }
    fn approval(self) -> Self {
        self.with(|p| p.wait = Some(Wait::Approval))
    }
    fn timer(self, seconds: u64) -> Self {
        self.with(|p| p.wait = Some(Wait::Timer(seconds)))
    }
    /// Becomes a child operation with these steps in sequence.
    fn detached(self, steps: &[&str]) -> Self {
        self.with(|p| p.mode = Mode::Detached).input(json!({ "steps": steps }))
    }
}

impl Shape for Step {
    fn needs(mut self, keys: &[&str]) -> Self {
        self.needs = keys.iter().map(|key| (*key).to_owned()).collect();
        self
    }
    fn registry(mut self) -> Self {
        self.kind = "registry".to_owned();
        self
    }
    fn with(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        self
    }
    fn input(mut self, input: Value) -> Self {
        self.input = input;
        self
    }
}

/// A new operation with these steps.
pub fn run(steps: impl IntoIterator<Item = Step>) -> Run {
    let id = OperationId::new();
    let operation = Operation {
        id,
        subject: format!("subject of {id}"),
        kind: "test".to_owned(),
        parent: None,
        state: OperationState::Running,
        version: 0,
        epoch: 0,
        input: Value::Null,
        error: None,
        error_step: None,
        cancelled: false,
        created_at: at(0),
        updated_at: at(0),
        finished_at: None,
        expected_by: None,
        stuck: false,
        wake_at: None,
        idle: false,
    };
    let steps = (0..).zip(steps).map(|(position, step)| Step { position, ..step });
    Run { operation, steps: steps.collect() }
}

/// A signal from an operator.
pub fn signal(kind: SignalKind) -> Signal {
    Signal { id: SignalId::new(), kind, by: "usr_1".to_owned(), at: at(0) }
}

/// A signal from another operation.
pub fn signal_from(sender: OperationId, kind: SignalKind) -> Signal {
    Signal { by: sender.to_string(), ..signal(kind) }
}

pub fn skip(step: &str) -> SignalKind {
    SignalKind::Skip { step: step.to_owned(), reason: "done by hand".to_owned() }
}
pub fn approve(step: &str) -> SignalKind {
    SignalKind::Approve { step: step.to_owned() }
}
pub fn reject(step: &str) -> SignalKind {
    SignalKind::Reject { step: step.to_owned(), reason: "too expensive".to_owned() }
}

pub fn busy() -> Failure {
    Failure::retryable("busy", "try later")
}
/// A wrong answer of a dependency that works.
pub fn wrong() -> Failure {
    Failure::retryable("wrong", "a check failed").wrong_answer()
}
pub fn lost() -> Failure {
    Failure::unknown("lost", "connection lost")
}
pub fn never() -> Failure {
    Failure::fatal("taken", "owned by another operation")
}

/// The id of an operation that does not exist.
pub fn unknown_id() -> OperationId {
    Id::new()
}
