//! The engine's port to the actions: from a step of the ledger to the action that does it, and back.

use async_trait::async_trait;
use tenantry_engine::{Attempt, Direction, Done, Mode, Operation, Policy, Run, Step, Steps};
use tenantry_model::{Failure, Timestamp, Write};

use super::registry::{action, operation};
use super::{Compensation, ProviderSteps, Start, detached, no_provider, transitions};
use crate::ledger::{OperationKind, input_of};
use crate::resource::ResourceHandle;

impl ProviderSteps {
    /// The provider of this name.
    pub(crate) fn provider(&self, name: &str) -> Result<&ResourceHandle, Failure> {
        self.resources.get(name).ok_or_else(|| no_provider(name))
    }
}

#[async_trait]
impl Steps for ProviderSteps {
    type Effect = Write;

    fn transactional(&self, step: &Step) -> bool {
        action(step).is_ok_and(|action| action.transactional(self, step))
    }

    fn intend(&self, run: &Run, step: &Step, direction: Direction, now: Timestamp) -> Vec<Write> {
        let (Ok(action), Ok(input)) = (action(step), input_of(step)) else { return Vec::new() };
        action.intend(self, &Start { run, step, input: &input, direction, now })
    }

    async fn attempt(&self, attempt: Attempt) -> Result<Done<Write>, Failure> {
        let action = action(&attempt.step)?;
        if attempt.direction == Direction::Run {
            return action.run(self, &attempt).await;
        }
        let effects = match action.compensate(self, &attempt).await? {
            Compensation::Writes(writes) => writes,
            Compensation::None(_) => Vec::new(),
        };
        // The forward output stays, as a record of what was made.
        Ok(Done { output: attempt.step.output, effects })
    }

    fn detach(&self, parent: &Operation, step: &Step) -> Run {
        let kind = OperationKind::Detached { step: step.key.clone() };
        let policy = Policy { mode: Mode::Inline, ..operation(&kind).policy(step.policy.clone()) };
        detached::run(parent, step, kind, policy)
    }

    fn changed(&self, before: Option<&Operation>, after: &Run, now: Timestamp) -> Vec<Write> {
        transitions::changed(before, after, now)
    }
}
