//! Deletes objects that are due by their buckets' own rules.

use std::time::Duration;

use async_trait::async_trait;
use tenantry_provider::Provider as _;

use super::Task;
use crate::control::Control;
use crate::error::{Error, Result};

/// Name of the task.
pub(super) const NAME: &str = "expire_objects";

/// Has every provider of objects delete those that are due.
pub(super) struct ExpireObjects;

#[async_trait]
impl Task for ExpireObjects {
    fn name(&self) -> &'static str {
        NAME
    }

    fn time_limit(&self) -> Duration {
        // A run starts at the first bucket, so it has to get through all of them.
        Duration::from_secs(6 * 3600)
    }

    async fn run(&self, control: &Control) -> Result<usize> {
        let (mut deleted, mut failed) = (0, None);
        for provider in control.shared.resources.iter() {
            let Some(objects) = provider.objects() else { continue };
            match objects.expire(control.now()).await {
                Ok(expired) => deleted += usize::try_from(expired.objects).unwrap_or(usize::MAX),
                // The other providers' objects are due all the same.
                Err(why) => {
                    tracing::warn!(provider = provider.name(), %why, "objects not expired");
                    failed = Some(why);
                }
            }
        }
        if deleted > 0 {
            tracing::info!(objects = deleted, "objects expired");
        }
        failed.map_or(Ok(deleted), |why| Err(Error::provider("a provider of buckets", why)))
    }
}
