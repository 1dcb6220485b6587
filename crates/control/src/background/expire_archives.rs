//! Deletes exports and backups at the end of their retention, and files without an archive.

use async_trait::async_trait;

use super::Task;
use crate::control::Control;
use crate::error::Result;

/// Name of the task.
pub(super) const NAME: &str = "expire_archives";

/// Deletes archives whose retention has ended.
pub(super) struct ExpireArchives;

#[async_trait]
impl Task for ExpireArchives {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, control: &Control) -> Result<usize> {
        control.sweep_archives().await
    }
}
