//! Measurements of onboardings and of calls of providers. `Metered` stands between executor and store, so that rejected commits
//! are not measured.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize as _;
use tenantry_engine::{
    Commit, CommitError, Ledger, Operation, OperationState, Run, Signal, Step, StepState, Waiting,
};
use tenantry_model::id::OperationId;
use tenantry_model::{Failure, Write};

use crate::ledger::{OperationInput, OperationKind};
use crate::resource::ProviderCall;

/// Receives measurements. The texts come from plans, templates and the code of providers: there are few different ones.
pub trait Meter: Send + Sync + 'static {
    /// An onboarding of this plan has ended like this, after this time.
    fn onboarded(&self, plan: &str, outcome: OperationState, took: Duration);

    /// A step got done, this long after its first start.
    fn step_done(&self, template: &str, step: &str, took: Duration);

    /// An attempt at a step has failed with this code.
    fn step_failed(&self, template: &str, step: &str, code: &str);

    /// A call of a provider has ended.
    fn provider_called(&self, _: ProviderCall<'_>) {}
}

/// A ledger that reports what it has committed.
pub(crate) struct Metered {
    inner: Arc<dyn Ledger<Write>>,
    meter: Arc<dyn Meter>,
}

impl Metered {
    /// Over this ledger.
    pub fn new(inner: Arc<dyn Ledger<Write>>, meter: Arc<dyn Meter>) -> Self {
        Self { inner, meter }
    }

    fn report(&self, run: &Run, changed: &[String]) {
        let Ok(start) = OperationInput::deserialize(&run.operation.input) else { return };
        let OperationInput { plan, template, .. } = start;
        for step in run.steps.iter().filter(|step| changed.contains(&step.key)) {
            if let Some(failure) = failed(step) {
                self.meter.step_failed(&template, &step.key, &failure.code);
            }
            // A detached step is done when its own operation is.
            if let (StepState::Done, None, Some(started), Some(ended)) =
                (step.state, step.child, step.started_at, step.finished_at)
            {
                self.meter.step_done(&template, &step.key, ended.since(started));
            }
        }
        let Operation { state, created_at, finished_at, error, error_step, .. } = &run.operation;
        // An operation that ends changes a step; a signal that comes too late changes none.
        if changed.is_empty() || !state.is_final() {
            return;
        }
        // A failure for good and the first undo are one commit, in which the failed step is already being undone. (Only
        // if the operation was paused in between, that failure has been reported above as well.)
        if let (OperationState::RolledBack, Some(failure), Some(step)) = (state, error, error_step) {
            self.meter.step_failed(&template, step, &failure.code);
        }
        if OperationKind::of(&run.operation) == OperationKind::Onboard {
            let took = finished_at.map(|ended| ended.since(*created_at)).unwrap_or_default();
            self.meter.onboarded(&plan, *state, took);
        }
    }
}

/// The failure of an attempt that has just ended.
fn failed(step: &Step) -> Option<&Failure> {
    let reported = match step.state {
        // Without a time it is tried again because a person asked for it.
        StepState::Retrying => step.due_at.is_some(),
        StepState::Failed | StepState::UndoFailed => true,
        _ => false,
    };
    step.error.as_ref().filter(|_| reported)
}

#[async_trait]
impl Ledger<Write> for Metered {
    async fn begin_epoch(&self) -> Result<i64, CommitError> {
        self.inner.begin_epoch().await
    }
    async fn epoch(&self) -> Result<i64, CommitError> {
        self.inner.epoch().await
    }
    async fn load(&self, id: OperationId) -> Result<Option<(Run, Vec<Signal>)>, CommitError> {
        self.inner.load(id).await
    }
    async fn commit(&self, commit: Commit<Write>) -> Result<(), CommitError> {
        let (run, changed) = (commit.run.clone(), commit.changed_steps.clone());
        self.inner.commit(commit).await?;
        self.report(&run, &changed);
        Ok(())
    }
    async fn unfinished(&self) -> Result<Vec<Waiting>, CommitError> {
        self.inner.unfinished().await
    }
    async fn signal(
        &self,
        id: OperationId,
        signal: Signal,
        effects: Vec<Write>,
    ) -> Result<bool, CommitError> {
        self.inner.signal(id, signal, effects).await
    }
    async fn note(&self, id: OperationId, epoch: i64, step: &Step) -> Result<(), CommitError> {
        self.inner.note(id, epoch, step).await
    }
}
