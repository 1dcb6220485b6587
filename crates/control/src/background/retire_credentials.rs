//! Ends former secrets of rotated credentials when the time for which both are valid is over.

use async_trait::async_trait;

use super::Task;
use crate::control::Control;
use crate::error::Result;

/// Name of the task.
pub(super) const NAME: &str = "retire_credentials";

/// Ends former secrets after their overlap.
pub(super) struct RetireCredentials;

#[async_trait]
impl Task for RetireCredentials {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, control: &Control) -> Result<usize> {
        control.retire_due().await
    }
}
