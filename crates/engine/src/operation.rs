//! An operation and its steps: the plan, which never changes, and the state, which only `decide`, `settle`
//! and `recover` change. These types are the ledger's rows: field and variant names must stay, so that old
//! rows load.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_model::{Failure, Timestamp, id::OperationId};

/// A durable operation on one subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it changes. The ledger allows one unfinished operation without a parent per subject.
    pub subject: String,
    /// Operation kind: `onboard`, `offboard` …
    pub kind: String,
    /// The operation whose detached step created this one.
    pub parent: Option<OperationId>,
    /// Its state.
    pub state: OperationState,
    /// Incremented by every commit; checked by compare-and-set.
    pub version: i64,
    /// Epoch of the executor that owns it; commits of older epochs fail.
    pub epoch: i64,
    /// Input of the operation kind. Opaque to the engine; without secrets and without personal data in clear.
    pub input: Value,
    /// The error that stopped it or caused the rollback.
    pub error: Option<Failure>,
    /// The step with that error.
    pub error_step: Option<String>,
    /// True after a cancel signal: the rollback ends in `cancelled`.
    pub cancelled: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it reached a final state.
    pub finished_at: Option<Timestamp>,
    /// When it should be finished; after that it counts as stuck, and one alert is raised.
    pub expected_by: Option<Timestamp>,
    /// True when that alert has been raised.
    pub stuck: bool,
    /// The next timer: a retry, the end of a wait, or `expected_by`.
    pub wake_at: Option<Timestamp>,
    /// True while no attempt runs.
    pub idle: bool,
}

impl Operation {
    /// A new operation, not yet in the ledger.
    pub fn new(id: OperationId, subject: &str, kind: &str, input: Value, now: Timestamp) -> Self {
        Self {
            id,
            subject: subject.to_owned(),
            kind: kind.to_owned(),
            parent: None,
            state: OperationState::Running,
            version: 0,
            epoch: 0,
            input,
            error: None,
            error_step: None,
            cancelled: false,
            created_at: now,
            updated_at: now,
            finished_at: None,
            expected_by: None,
            stuck: false,
            wake_at: None,
            idle: false,
        }
    }
}

/// State of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Going forward: attempts run, or it waits for a timer or a signal.
    Running,
    /// Starts no attempt until it is resumed.
    Paused,
    /// Compensating its steps.
    RollingBack,
    /// Waits for an operator: retry, skip or cancel it.
    NeedsAttention,
    /// Final: every step is done or skipped.
    Succeeded,
    /// Final: failed, and every step is compensated.
    RolledBack,
    /// Final: cancelled, and every step is compensated.
    Cancelled,
}

impl OperationState {
    /// True for the three final states.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::RolledBack | Self::Cancelled)
    }
    /// The word used in the API and the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::RollingBack => "rolling_back",
            Self::NeedsAttention => "needs_attention",
            Self::Succeeded => "succeeded",
            Self::RolledBack => "rolled_back",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Name in the plan, unique in the operation.
    pub key: String,
    /// Position in the plan, for display.
    pub position: i32,
    /// Resource kind or action, such as `database`. Opaque to the engine.
    pub kind: String,
    /// Provider of the resource. Opaque to the engine.
    pub provider: String,
    /// Keys of the steps that must be done or skipped before this one starts.
    pub needs: Vec<String>,
    /// Timeout, retries and what follows a failure.
    pub policy: Policy,
    /// Input of the step's code, fixed when the plan was made. Opaque to the engine.
    pub input: Value,

    /// Its state.
    pub state: StepState,
    /// Attempts in the current direction, without those that a crash cut off.
    pub attempts: i32,
    /// Attempts that the end of a process cut off.
    pub interruptions: i32,
    /// First failure since the step, or its compensation, started, last succeeded, or was retried by an
    /// operator.
    pub failing_since: Option<Timestamp>,
    /// Earliest next start: the end of a retry's delay or of a timer.
    pub due_at: Option<Timestamp>,
    /// When it first started.
    pub started_at: Option<Timestamp>,
    /// When it ended, with or without success.
    pub finished_at: Option<Timestamp>,
    /// Its output, which later steps read.
    pub output: Value,
    /// Its latest failure; stays after a successful retry.
    pub error: Option<Failure>,
    /// True when an attempt with unknown outcome (no answer, timeout, crash) may have created something.
    pub uncertain: bool,
    /// Note of the running attempt, such as a process group. Cleared when the attempt ends.
    pub note: Option<Value>,
    /// The child operation of a detached step.
    pub child: Option<OperationId>,
}

impl Step {
    /// A pending step at position 0 that needs no other.
    pub fn new(key: &str, kind: &str, provider: &str, policy: Policy, input: Value) -> Self {
        Self {
            key: key.to_owned(),
            position: 0,
            kind: kind.to_owned(),
            provider: provider.to_owned(),
            needs: Vec::new(),
            policy,
            input,
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

    /// True when the step has failed, and no attempt created or changed anything.
    pub fn is_untouched(&self) -> bool {
        !self.uncertain && self.error.as_ref().is_some_and(|error| error.untouched)
    }
}

/// State of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not started.
    Pending,
    /// An attempt runs, or ran when the process ended.
    Running,
    /// Failed; the next attempt starts at `due_at`.
    Retrying,
    /// Waits for a signal or for `due_at`.
    Waiting,
    /// Done; never runs again.
    Done,
    /// Skipped by an operator.
    Skipped,
    /// Failed without another retry.
    Failed,
    /// To be compensated at `due_at`, after the steps that needed it.
    UndoPending,
    /// A compensation runs, or ran when the process ended.
    Undoing,
    /// Compensated, or never started in an operation that was rolled back.
    Undone,
    /// Its compensation failed without another retry; an operator must act.
    UndoFailed,
}

impl StepState {
    /// True when steps that need this one may start.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Skipped)
    }
    /// The word used in the API and the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::UndoPending => "undo_pending",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::UndoFailed => "undo_failed",
        }
    }
}

/// Timeout, retries and failure policy of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Timeout of one attempt, in milliseconds.
    pub timeout_ms: u64,
    /// Retries after wrong answers in a row of a dependency that works, such as a check that fails.
    pub max_retries: u32,
    /// Time from the first failure for which a dependency that does not work is waited for, in milliseconds;
    /// 0 retries nothing. None is the executor's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_for_ms: Option<u64>,
    /// Longest first delay, in milliseconds; doubles with each retry.
    pub backoff_ms: u64,
    /// Longest computed delay, in milliseconds. A server's `Retry-After` may be longer.
    pub backoff_cap_ms: u64,
    /// What follows the last failed retry.
    pub on_failure: OnFailure,
    /// Whether the operation waits for the step.
    pub mode: Mode,
    /// With a wait, the step runs no code and only waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// Time after a lost answer in which the provider may still act, in milliseconds: an uncertain
    /// compensation runs again after it.
    pub in_flight_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeout_ms: 60_000,
            max_retries: 3,
            retry_for_ms: None,
            backoff_ms: 500,
            backoff_cap_ms: 60_000,
            on_failure: OnFailure::Rollback,
            mode: Mode::Inline,
            wait: None,
            in_flight_ms: 0,
        }
    }
}

impl Policy {
    /// Timeout of one attempt.
    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// What follows when a step has failed and has no retry left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Compensate every step.
    Rollback,
    /// Stop in `needs_attention`.
    Park,
}

/// Whether an operation waits for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It waits.
    Inline,
    /// It does not wait: the step becomes a child operation with its own retries.
    Detached,
}

/// What a waiting step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// An `approve` signal.
    Approval,
    /// This number of seconds.
    Timer(u64),
}

/// An operation with its steps, in plan order.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The operation.
    pub operation: Operation,
    /// Its steps.
    pub steps: Vec<Step>,
}

impl Run {
    /// The step with this key.
    pub fn step(&self, key: &str) -> Option<&Step> {
        self.steps.iter().find(|s| s.key == key)
    }
    /// The step with this key, mutable.
    pub fn step_mut(&mut self, key: &str) -> Option<&mut Step> {
        self.steps.iter_mut().find(|s| s.key == key)
    }
}
