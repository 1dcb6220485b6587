//! Deletes sessions some time after they have expired. Until then lists show when and why they ended.

use std::time::Duration;

use async_trait::async_trait;

use super::Task;
use crate::control::Control;
use crate::error::{Error, Result};

/// Name of the task.
pub(super) const NAME: &str = "forget_sessions";
/// Time for which an expired session is kept.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Deletes sessions that expired 30 days ago.
pub(super) struct ForgetSessions;

#[async_trait]
impl Task for ForgetSessions {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, control: &Control) -> Result<usize> {
        let before = control.now() - KEPT;
        control.shared.store.forget_sessions(before).await.map_err(Error::unavailable)
    }
}
