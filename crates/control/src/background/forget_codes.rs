//! Deletes one-time sign-in codes that have expired.

use async_trait::async_trait;

use super::Task;
use crate::control::Control;
use crate::error::{Error, Result};

/// Name of the task.
pub(super) const NAME: &str = "forget_codes";

/// Deletes expired sign-in codes.
pub(super) struct ForgetCodes;

#[async_trait]
impl Task for ForgetCodes {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, control: &Control) -> Result<usize> {
        control.shared.store.forget_codes(control.now()).await.map_err(Error::unavailable)
    }
}
