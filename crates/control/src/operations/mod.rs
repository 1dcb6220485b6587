//! Operations: what changes a tenant durably. An operation kind is a folder with its use case and its plan, and with one
//! file for each action of that plan: run and compensation side by side. `registry.rs` lists them all.

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

/// Provider name of steps that Tenantry does itself.
pub(crate) const TENANTRY: &str = "tenantry";

/// An operation kind. Each has its plan beside it: a pure function from what the use case read to steps.
pub(crate) trait Operation: Send + Sync {
    /// Its kind.
    fn kind(&self) -> OperationKind;

    /// What happens when a step has failed for good. [`Self::policy`] sets it on every step of the plan; an onboarding's
    /// template decides step by step instead.
    fn on_failure(&self) -> OnFailure;

    /// This policy for a step of this kind of operation.
    fn policy(&self, policy: Policy) -> Policy {
        Policy { on_failure: self.on_failure(), ..policy }
    }

    /// Whether its steps create the resources that they ensure. Then they record them, and compensation removes them. False:
    /// the resources are the tenant's already.
    fn creates_resources(&self) -> bool {
        true
    }

    /// Whether it replaces the content of the tenant's resources. No offboarding begins while such an operation runs.
    fn replaces_content(&self) -> bool {
        false
    }

    /// Whether it ends its tenant.
    fn ends_tenant(&self) -> bool {
        false
    }

    /// Whether it has begun to delete its tenant, or has deleted it, so that an erasure need not begin again.
    fn deletes_tenant(&self, _: &Run) -> bool {
        false
    }

    /// Writes that are committed together with the change of the operation's state.
    fn on_transition(&self, _: &Transition<'_>) -> Vec<Write> {
        Vec::new()
    }

    /// Whether a client may skip this step, or why not.
    fn may_skip(&self, step: &Step) -> Result<(), &'static str> {
        let action = registry::action(step).ok();
        action.and_then(Action::required_because).map_or(Ok(()), Err)
    }

    /// Whether a client may cancel the operation, or why not.
    fn may_cancel(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// What the steps of one kind do. An attempt may be cut off at any point and made again.
#[async_trait]
pub(crate) trait Action: Send + Sync {
    /// Kind of its steps.
    fn kind(&self) -> &'static str;

    /// Whether [`Self::run`] only computes writes. Its start, its end and the writes then share one transaction.
    fn transactional(&self, _: &ProviderSteps, _: &Step) -> bool {
        false
    }

    /// Why a client may not skip its steps, if that is so.
    fn required_because(&self) -> Option<&'static str> {
        None
    }

    /// Writes that are committed with the start of a step, before it runs or is compensated.
    fn intend(&self, _: &ProviderSteps, _: &Start<'_>) -> Vec<Write> {
        Vec::new()
    }

    /// Does the step.
    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure>;

    /// Undoes the step, however far it came, or says why there is nothing to undo.
    async fn compensate(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Compensation, Failure>;

    /// Adds what a finished step gave to the response of its operation.
    fn respond(&self, _: &Step, _: &mut ResponseView) {}
}

/// A step that is about to start.
pub(crate) struct Start<'a> {
    /// Its operation.
    pub run: &'a Run,
    /// The step.
    pub step: &'a Step,
    /// Its input.
    pub input: &'a StepInput,
    /// Forward, or compensation.
    pub direction: Direction,
    /// Now.
    pub now: Timestamp,
}

/// A compensation that succeeded.
pub(crate) enum Compensation {
    /// What the step made is gone once these writes are committed.
    Writes(Vec<Write>),
    /// There is nothing to undo, for this reason.
    None(#[expect(dead_code, reason = "for the reader of the action")] &'static str),
}

/// An attempt that gave nothing but writes.
pub(crate) fn writes(effects: Vec<Write>) -> Done<Write> {
    Done { output: serde_json::Value::Null, effects }
}

/// The failure of a compensation that must never be asked for: nothing brings back what the step deleted.
pub(crate) fn irreversible(step: &Step) -> Failure {
    Failure::fatal("irreversible", format!("step `{}` cannot be undone", step.key))
}

/// The failure of a step whose provider this process does not have.
pub(crate) fn no_provider(name: &str) -> Failure {
    Failure::fatal("no_provider", format!("provider `{name}` is not configured here"))
}
