//! An operation that a test advances by hand: the executor's part without ledger, tasks and clock.

use serde_json::json;
use tenantry_engine::decide::{Decision, decide, recover, settle};
use tenantry_engine::retry::{RETRY_FOR, RetryInputs};
use tenantry_engine::{Direction, Run, Signal, SignalKind, Step};
use tenantry_model::{Failure, Timestamp};

use crate::plan::{at, run, signal};

/// The executor's part in retries: the full delay.
pub const INPUTS: RetryInputs = RetryInputs { retry_for: RETRY_FOR, jitter: 1.0 };

/// The operation, the time, and the latest decision.
pub struct Story {
    pub run: Run,
    pub now: Timestamp,
    pub decision: Decision,
}

impl Story {
    /// A new operation after its first decision.
    pub fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::from(run(steps))
    }
    pub fn from(run: Run) -> Self {
        Self { run, now: at(0), decision: Decision::default() }.decided(&[])
    }
    fn decided(mut self, signals: &[Signal]) -> Self {
        self.decide(signals);
        self
    }
    fn decide(&mut self, signals: &[Signal]) -> &mut Self {
        self.decision = decide(&mut self.run, signals, self.now);
        self
    }
    /// Signals of an operator, in one decision.
    pub fn asked(&mut self, kinds: &[SignalKind]) -> &mut Self {
        let at = self.now;
        let signals: Vec<_> = kinds.iter().map(|kind| Signal { at, ..signal(kind.clone()) }).collect();
        self.decide(&signals)
    }
    pub fn signalled(&mut self, signal: Signal) -> &mut Self {
        self.decide(&[signal])
    }
    pub fn signalled_all(&mut self, signals: &[Signal]) -> &mut Self {
        self.decide(signals)
    }
    /// The attempt at this step succeeds.
    pub fn ok(&mut self, key: &str) -> &mut Self {
        self.ended(key, Ok(json!({ "made": key })))
    }
    /// The attempt at this step fails.
    pub fn failed(&mut self, key: &str, failure: Failure) -> &mut Self {
        self.ended(key, Err(failure))
    }
    fn ended(&mut self, key: &str, result: Result<serde_json::Value, Failure>) -> &mut Self {
        let undoing = self.run.step(key).is_some_and(|s| s.state == tenantry_engine::StepState::Undoing);
        let direction = if undoing { Direction::Compensate } else { Direction::Run };
        settle(&mut self.run, key, direction, result, self.now, INPUTS);
        self.decide(&[])
    }
    /// The process ends and another process takes over.
    pub fn crashed(&mut self) -> &mut Self {
        let epoch = self.run.operation.epoch + 1;
        recover(&mut self.run, epoch, self.now);
        self.decide(&[])
    }
    /// Sets the time to that many seconds after the start, and decides.
    pub fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = at(seconds);
        self.decide(&[])
    }
    /// Operation and steps in one line: `running: a=done b=running`.
    pub fn line(&self) -> String {
        let steps = self.run.steps.iter().map(|s| format!(" {}={}", s.key, s.state.as_str()));
        format!("{}:{}", self.run.operation.state.as_str(), steps.collect::<String>())
    }
    /// Attempts that the latest decision starts: `do b, undo a`.
    pub fn starts(&self) -> String {
        let direction = |direction| if direction == Direction::Run { "do" } else { "undo" };
        let starts: Vec<_> =
            self.decision.start.iter().map(|(key, v)| format!("{} {key}", direction(*v))).collect();
        starts.join(", ")
    }
    /// `wake_at` in seconds after the start.
    pub fn wakes(&self) -> Option<f64> {
        self.run.operation.wake_at.map(|wake| wake.since(at(0)).as_secs_f64())
    }
    pub fn step(&self, key: &str) -> &Step {
        self.run.step(key).unwrap()
    }
}
