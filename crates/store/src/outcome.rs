//! Onboardings that have ended, as the statistics read them, and how many slots are taken. Pure.

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
    /// The step that stopped it, and the failure's code.
    pub stopped_by: Option<(String, String)>,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// In plan order.
    pub steps: Vec<StepOutcome>,
}

/// One step of an onboarding.
#[derive(Clone, Debug)]
pub struct StepOutcome {
    /// Step key.
    pub key: String,
    /// Step kind.
    pub kind: String,
    /// Keys of the steps that it waits for.
    pub needs: Vec<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// When its first attempt began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Whether it is done or skipped.
    pub over: bool,
    /// Whether it is detached: an operation of its own.
    pub detached: bool,
}

/// Slots of one kind in one region that are used or reserved.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Region.
    pub region: String,
    /// Resource kind.
    pub kind: String,
    /// Slots of tenants that are there.
    pub used: u64,
    /// Slots of onboardings under way.
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
