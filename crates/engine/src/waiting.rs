//! Which operations wait for which provider: those with a step whose latest call of the provider failed and is
//! to be retried, because the provider does not work. In memory only: a new leader retries them at once, which fills it again.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tenantry_model::id::OperationId;

use crate::operation::{Run, Step, StepState};

/// True when a failure may be over once this provider works again: it was a call of this provider, or of no
/// provider that has a name. After a wrong answer the step keeps its delay.
pub(crate) fn may_continue_with(step: &Step, provider: &str) -> bool {
    step.waits_out_an_outage() && step.waits_for().is_none_or(|name| name == provider)
}

/// The waiting operations, each with the providers it waits for; none is a dependency without a name.
#[derive(Default)]
pub(crate) struct WaitingOperations(Mutex<BTreeMap<OperationId, BTreeSet<Option<String>>>>);

impl WaitingOperations {
    /// Replaces what is known of one operation.
    pub fn update(&self, run: &Run) {
        let state = run.operation.state;
        let waiting = run.steps.iter().filter(|step| !state.is_final() && step.waits_out_an_outage());
        let providers: BTreeSet<_> = waiting.map(|step| step.waits_for().map(str::to_owned)).collect();
        let mut all = self.0.lock();
        match providers.is_empty() {
            true => _ = all.remove(&run.operation.id),
            false => _ = all.insert(run.operation.id, providers),
        }
    }

    /// Operations that may wait for this provider.
    pub fn on(&self, provider: &str) -> Vec<OperationId> {
        let may_wait = |name: &Option<String>| name.as_deref().is_none_or(|name| name == provider);
        let all = self.0.lock();
        all.iter().filter(|(_, names)| names.iter().any(may_wait)).map(|(id, _)| *id).collect()
    }

    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

impl Step {
    /// True while the step waits for its next attempt after a failure.
    pub fn waits(&self) -> bool {
        matches!(self.state, StepState::Retrying | StepState::UndoPending) && self.failing_since.is_some()
    }

    /// True while the step waits because its dependency does not work; false after a wrong answer.
    pub(crate) fn waits_out_an_outage(&self) -> bool {
        self.waits() && self.error.as_ref().is_some_and(|error| error.wrong_answers == 0)
    }

    /// The provider whose failure the step waits out, if it has a name.
    pub fn waits_for(&self) -> Option<&str> {
        self.error.as_ref().filter(|_| self.waits())?.provider.as_deref()
    }
}
