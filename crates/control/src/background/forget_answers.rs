//! Deletes the stored answers of idempotent requests when no client sends those again.

use super::Task;
use crate::control::Control;
use crate::error::{Error, Result};
use async_trait::async_trait;
use std::time::Duration;

/// Name of the task.
pub(super) const NAME: &str = "forget_answers";
/// Time for which a repeated request gets the first answer.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Deletes answers that are older than 30 days.
pub(super) struct ForgetAnswers;

#[async_trait]
impl Task for ForgetAnswers {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, control: &Control) -> Result<usize> {
        let before = control.now() - KEPT;
        control.shared.store.forget_answers(before).await.map_err(Error::unavailable)
    }
}
