//! Input of the statistics: onboardings that have ended, and the number of used slots. Pure.

use std::time::Duration;

use tenantry_engine::OperationState;
use tenantry_model::Timestamp;

/// An onboarding that has ended or needs attention.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Name of the plan.
    pub plan: String,
    /// Name of the template.
    pub template: String,
    /// State of the operation.
    pub state: OperationState,
    /// Step that stopped the onboarding, and the code of its failure.
    pub stopped_by: Option<(String, String)>,
    /// Time of the request.
    pub began: Timestamp,
    /// Time of the end.
    pub ended: Option<Timestamp>,
    /// Steps, in plan order.
    pub steps: Vec<StepOutcome>,
}

/// One step of an onboarding.
#[derive(Clone, Debug)]
pub struct StepOutcome {
    /// Step key.
    pub key: String,
    /// Step kind.
    pub kind: String,
    /// Keys of the steps that must end before this one starts.
    pub needs: Vec<String>,
    /// Number of attempts so far.
    pub attempts: u32,
    /// Start of the first attempt.
    pub started: Option<Timestamp>,
    /// End of the last attempt.
    pub ended: Option<Timestamp>,
    /// Whether the step is done or skipped.
    pub over: bool,
    /// Whether the step is detached, and runs as an operation of its own.
    pub detached: bool,
}

/// Slots of one kind in one region that are used or reserved.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Region.
    pub region: String,
    /// Resource kind.
    pub kind: String,
    /// Number of slots of existing tenants.
    pub used: u64,
    /// Number of slots that running onboardings have reserved.
    pub reserved: u64,
}

impl Outcome {
    /// Whether the onboarding succeeded.
    pub fn succeeded(&self) -> bool {
        self.state == OperationState::Succeeded
    }

    /// Time from begin to end; zero while it has not ended.
    pub fn took(&self) -> Duration {
        self.ended.map(|ended| ended.since(self.began)).unwrap_or_default()
    }

    /// Of the steps that `step` needs, the one that ended last.
    pub fn held_up(&self, step: &StepOutcome) -> Option<&StepOutcome> {
        last(self.steps.iter().filter(|other| step.needs.contains(&other.key)))
    }

    /// The critical path, from the last step backwards. Bounded by the number of steps, whatever the rows contain.
    pub fn critical_path(&self) -> impl Iterator<Item = &StepOutcome> {
        let end = last(self.steps.iter().filter(|step| !step.detached));
        std::iter::successors(end, |step| self.held_up(step)).take(self.steps.len())
    }
}

impl StepOutcome {
    /// Time from its first attempt to its end.
    pub fn took(&self) -> Duration {
        self.started.zip(self.ended).map(|(started, ended)| ended.since(started)).unwrap_or_default()
    }
}

/// The step that ended last; of several, the last in the plan.
fn last<'a>(steps: impl Iterator<Item = &'a StepOutcome>) -> Option<&'a StepOutcome> {
    steps.filter(|step| step.over).max_by_key(|step| step.ended)
}
