//! Compares fences with what is recorded, and applies those again that differ, as after a failover of a tenants' server.

use async_trait::async_trait;

use super::Task;
use crate::control::Control;
use crate::error::Result;

/// Name of the task.
pub(super) const NAME: &str = "reconcile_fences";

/// Applies fences again that differ from what is recorded.
pub(super) struct ReconcileFences;

#[async_trait]
impl Task for ReconcileFences {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, control: &Control) -> Result<usize> {
        control.reconcile_fences().await
    }
}
