//! Waits for an approval or a time.

use async_trait::async_trait;
use tenantry_engine::{Attempt, Done};
use tenantry_model::{Failure, Write};

use crate::operations::{Action, Compensation, ProviderSteps};

/// A step that only waits. The engine ends it; it is never run.
pub(crate) struct Wait;

#[async_trait]
impl Action for Wait {
    fn kind(&self) -> &'static str {
        "wait"
    }

    async fn run(&self, _: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let key = &attempt.step.key;
        Err(Failure::fatal("bad_plan", format!("step `{key}` waits, and its policy does not say for what")))
    }

    async fn compensate(&self, _: &ProviderSteps, _: &Attempt) -> Result<Compensation, Failure> {
        Ok(Compensation::None("waiting changes nothing"))
    }
}
