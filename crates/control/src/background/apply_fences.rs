//! Applies fences that no provider has acknowledged. Until then a suspended tenant may still have access, so it runs every few seconds.

use super::Task;
use crate::control::Control;
use crate::error::Result;
use async_trait::async_trait;
use std::time::Duration;

/// Name of the task.
pub(super) const NAME: &str = "apply_fences";

/// Applies fences that are not recorded as applied.
pub(super) struct ApplyFences;

#[async_trait]
impl Task for ApplyFences {
    fn name(&self) -> &'static str {
        NAME
    }
    fn interval(&self) -> Duration {
        Duration::from_secs(5)
    }

    async fn run(&self, control: &Control) -> Result<usize> {
        control.apply_pending_fences().await
    }
}
