//! Operations: long-running changes of a tenant. An operation kind is a folder with its use case, its plan, and one
//! file for each action of the plan: run and compensation side by side. `registry.rs` lists all kinds and actions.

pub mod archive;
pub mod clone;
mod detached;
mod dispatch;
pub mod erase;
mod manage;
pub mod offboard;
pub mod onboard;
mod registry;
pub mod repair;
mod resource_steps;
pub mod rotate_credentials;
mod transitions;
pub mod view;

use async_trait::async_trait;
use tenantry_engine::{Attempt, Direction, Done, OnFailure, Policy, Run, Step};
use tenantry_model::{Failure, Timestamp, Write};

pub(crate) use crate::control::ProviderSteps;
use crate::ledger::{OperationKind, StepInput};
use view::ResponseView;

pub use manage::OperationQuery;
pub(crate) use transitions::Transition;

/// Provider name of steps that run an action instead of calling a provider.
pub(crate) const TENANTRY: &str = "tenantry";

/// An operation kind. Its plan is a pure function beside it that turns the request and the registry's rows into steps.
pub(crate) trait Operation: Send + Sync {
    /// The kind, as stored.
    fn kind(&self) -> OperationKind;

    /// The reaction to a step that has failed and is not retried: compensate, or stop in `needs_attention`.
    /// [`Self::policy`] sets it on every step of the plan; an onboarding's template sets it for each step instead.
    fn on_failure(&self) -> OnFailure;

    /// Adapts the retry policy of a step to this operation kind.
    fn policy(&self, policy: Policy) -> Policy {
        Policy { on_failure: self.on_failure(), ..policy }
    }

    /// Whether the steps create the resources that they ensure. If so, the steps record the resources, and compensation
    /// removes them. If not, the tenant had the resources before the operation.
    fn creates_resources(&self) -> bool {
        true
    }

    /// Whether the operation replaces the content of the tenant's resources. No offboarding starts while it runs.
    fn replaces_content(&self) -> bool {
        false
    }

    /// Whether the operation ends the tenant, as an offboarding or an erasure does.
    fn ends_tenant(&self) -> bool {
        false
    }

    /// Whether this run has started to delete the tenant, or has deleted it, so that an erasure need not start again.
    fn deletes_tenant(&self, _: &Run) -> bool {
        false
    }

    /// Writes that are committed together with the change of the operation's state.
    fn on_transition(&self, _: &Transition<'_>) -> Vec<Write> {
        Vec::new()
    }

    /// Whether a client may skip this step. The error is the reason why not.
    fn may_skip(&self, step: &Step) -> Result<(), &'static str> {
        let action = registry::action(step).ok();
        action.and_then(Action::required_because).map_or(Ok(()), Err)
    }

    /// Whether a client may cancel the operation. The error is the reason why not.
    fn may_cancel(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// The work of a step kind, and its compensation. The process may die at any point of an attempt; the next process then
/// calls the same method again.
#[async_trait]
pub(crate) trait Action: Send + Sync {
    /// Kind of the steps that run this action, as stored.
    fn kind(&self) -> &'static str;

    /// Whether [`Self::run`] only computes writes. Start and end of the step and the writes then share one transaction.
    fn transactional(&self, _: &ProviderSteps, _: &Step) -> bool {
        false
    }

    /// The reason why a client must not skip steps of this kind; none if it may.
    fn required_because(&self) -> Option<&'static str> {
        None
    }

    /// Writes that are committed with the start of a step, before it runs or is compensated.
    fn intend(&self, _: &ProviderSteps, _: &Start<'_>) -> Vec<Write> {
        Vec::new()
    }

    /// Runs the step. Returns its output and the writes that are committed with its end.
    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure>;

    /// Reverses the step, even if it was interrupted, or returns the reason why there is nothing to reverse.
    async fn compensate(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Compensation, Failure>;

    /// Adds the result of a finished step to the response of its operation.
    fn respond(&self, _: &Step, _: &mut ResponseView) {}
}

/// A step that is about to start.
pub(crate) struct Start<'a> {
    /// Operation of the step, with all its steps.
    pub run: &'a Run,
    /// The step.
    pub step: &'a Step,
    /// Input of the step.
    pub input: &'a StepInput,
    /// Whether the step is to run or to be compensated.
    pub direction: Direction,
    /// Time of the start.
    pub now: Timestamp,
}

/// Result of a successful compensation.
pub(crate) enum Compensation {
    /// The step is reversed once these writes are committed.
    Writes(Vec<Write>),
    /// There is nothing to reverse, for this reason.
    None(#[expect(dead_code, reason = "for the reader of the action")] &'static str),
}

/// Result of an attempt that has writes and no output.
pub(crate) fn writes(effects: Vec<Write>) -> Done<Write> {
    Done { output: serde_json::Value::Null, effects }
}

/// The failure of compensating a step that deletes something, which cannot be restored. No plan requests it.
pub(crate) fn irreversible(step: &Step) -> Failure {
    Failure::fatal("irreversible", format!("step `{}` cannot be undone", step.key))
}

/// The failure of a step whose provider is not configured in this process.
pub(crate) fn no_provider(name: &str) -> Failure {
    let why = format!("provider `{name}` is not configured on this server: add it to the configuration");
    Failure::fatal("no_provider", why).untouched()
}
