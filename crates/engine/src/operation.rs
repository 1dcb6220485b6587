//! An operation and its steps: the plan, which never changes, and the state, which only `decide`, `settle` and
//! signals change. These types are the ledger's rows; their names and words are API (old ledgers must load).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_model::{Failure, Timestamp, id::OperationId};

/// One long-running change of one subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it changes. At most one unfinished operation without a parent per subject: the ledger enforces it.
    pub subject: String,
    /// Which use case: `onboard`, `offboard` …
    pub kind: String,
    /// The operation that started this one by a detached step.
    pub parent: Option<OperationId>,
    /// Where it is.
    pub state: OperationState,
    /// Raised by every commit; compare-and-set.
    pub version: i64,
    /// The executor generation that owns it; a commit from an older one is refused.
    pub epoch: i64,
    /// What the use case needs to know again after a restart. Opaque here; holds no secrets and no clear personal data.
    pub input: Value,
    /// What stopped it, if something did.
    pub error: Option<Failure>,
    /// The step that stopped it.
    pub error_step: Option<String>,
    /// Whether a signal asked to end it: a rollback then ends in `cancelled`.
    pub cancelled: bool,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it reached a final state.
    pub finished_at: Option<Timestamp>,
    /// When it should be finished; later than this it counts as stuck and an alert is raised once (S0.15).
    pub expected_by: Option<Timestamp>,
    /// Whether that alert has been raised.
    pub stuck: bool,
    /// The next instant at which something is to be done without anybody's signal. None: nothing to wait for.
    pub wake_at: Option<Timestamp>,
    /// True while no attempt runs: the operation then costs a row and, with `wake_at`, a timer.
    pub idle: bool,
}

impl Operation {
    /// A new one, not yet in the ledger.
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

/// Where an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Going forward (attempts run, or it waits for a timer or a signal).
    Running,
    /// Starts nothing new until it is resumed.
    Paused,
    /// Undoing what it made.
    RollingBack,
    /// Cannot go on without a person: retry, skip or cancel it.
    NeedsAttention,
    /// Final: everything done.
    Succeeded,
    /// Final: failed, and everything that it made is gone.
    RolledBack,
    /// Final: asked to end, and everything that it made is gone.
    Cancelled,
}

impl OperationState {
    /// Whether nothing will ever change again.
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

/// One unit of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The name in the plan, unique in the operation.
    pub key: String,
    /// Place in the plan, for people.
    pub position: i32,
    /// What it works on, such as `database`. Opaque here.
    pub kind: String,
    /// Who does it. Opaque here.
    pub provider: String,
    /// Keys of the steps that must be over before this one starts.
    pub needs: Vec<String>,
    /// How it is tried.
    pub policy: Policy,
    /// Everything that the step's code needs, frozen when the plan was made. Opaque here.
    pub input: Value,

    /// Where it is.
    pub state: StepState,
    /// Attempts begun in the current direction (forward, or undo), those cut off by a crash not counted.
    pub attempts: i32,
    /// Attempts cut off by the end of a process.
    pub interruptions: i32,
    /// Not before this instant: a retry's delay, or the end of a timed wait.
    pub due_at: Option<Timestamp>,
    /// First start.
    pub started_at: Option<Timestamp>,
    /// End, whichever.
    pub finished_at: Option<Timestamp>,
    /// What it gave; steps that need it read this.
    pub output: Value,
    /// Its latest failure. Stays after a successful retry is over, as history.
    pub error: Option<Failure>,
    /// Whether some attempt may have left something that nobody saw (no answer, time-out, crash).
    pub uncertain: bool,
    /// What an attempt noted of itself while it ran, such as a process group. Cleared when it ends.
    pub note: Option<Value>,
    /// The operation that a detached step started.
    pub child: Option<OperationId>,
}

impl Step {
    /// One that has not begun, in the first place, and that needs no other.
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
}

/// Where a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// An attempt runs, or ran when the process ended.
    Running,
    /// Failed; tried again at `due_at`.
    Retrying,
    /// Waits for a signal or for `due_at`.
    Waiting,
    /// Done. Never run again.
    Done,
    /// Left out by a person's decision.
    Skipped,
    /// Failed for good.
    Failed,
    /// To be undone, at `due_at` or when the steps that were done after it are undone.
    UndoPending,
    /// An undo runs, or ran when the process ended.
    Undoing,
    /// Undone, or never begun in an operation that was rolled back.
    Undone,
    /// Its undo failed for good; a person must act.
    UndoFailed,
}

impl StepState {
    /// Whether steps that need this one may start.
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

/// How a step is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Longest time of one attempt, in milliseconds.
    pub timeout_ms: u64,
    /// Attempts after the first (S4.94).
    pub max_retries: u32,
    /// Upper bound of the first delay, in milliseconds; doubles with each retry.
    pub backoff_ms: u64,
    /// Upper bound of any delay of our own, in milliseconds. A server's `Retry-After` may be longer.
    pub backoff_cap_ms: u64,
    /// What happens when the retries are used up.
    pub on_failure: OnFailure,
    /// Whether the operation waits for it.
    pub mode: Mode,
    /// Nothing runs; the step waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// How long after a lost answer the other side may still act, in milliseconds: an uncertain undo waits this
    /// long and then looks again.
    pub in_flight_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeout_ms: 60_000,
            max_retries: 3,
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
    /// Longest time of one attempt.
    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// What happens when a step has failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Undo everything.
    Rollback,
    /// Stop and ask for a person.
    Park,
}

/// Whether an operation waits for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Yes.
    Inline,
    /// No: it becomes a child operation with retries of its own (S0.24-26).
    Detached,
}

/// What a waiting step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// An `approve` signal.
    Approval,
    /// This many seconds.
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
    /// The step of this key.
    pub fn step(&self, key: &str) -> Option<&Step> {
        self.steps.iter().find(|s| s.key == key)
    }
    /// The step of this key, to change it.
    pub fn step_mut(&mut self, key: &str) -> Option<&mut Step> {
        self.steps.iter_mut().find(|s| s.key == key)
    }
}
