//! Checks that tenants are isolated from each other, as often as the configuration says: the task only finds out whether a
//! check is due.

use async_trait::async_trait;

use super::Task;
use crate::control::Control;
use crate::error::Result;

/// Name of the task.
pub(super) const NAME: &str = "check_isolation";

/// Checks the fleet when its last report is old enough.
pub(super) struct CheckIsolation;

#[async_trait]
impl Task for CheckIsolation {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, control: &Control) -> Result<usize> {
        let checked = control.check_isolation_if_due().await;
        if let Err(why) = &checked {
            tracing::error!(%why, "isolation of the tenants is not known: the check failed");
        }
        checked.map(usize::from)
    }
}
