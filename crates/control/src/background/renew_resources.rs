//! Renews resources before they expire, such as certificates: starts a repair for each.

use async_trait::async_trait;

use super::Task;
use crate::control::Control;
use crate::error::Result;

/// Name of the task.
pub(super) const NAME: &str = "renew_resources";

/// Starts a repair for each resource that is due for renewal.
pub(super) struct RenewResources;

#[async_trait]
impl Task for RenewResources {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, control: &Control) -> Result<usize> {
        control.renew_due().await
    }
}
