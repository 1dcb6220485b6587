//! What is done once in a while, whoever asks for it: what comes to its end by itself is renewed, and what is past its end
//! goes. Safe at any time, and twice.

use std::time::Duration;

use tenantry_provider::objects::Expired;

use crate::control::Control;
use crate::error::{Error, Result};

/// How long a request that is sent again gets the same answer: as long as operations are talked of.
const ANSWERS_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Renewals that were begun.
    pub renewals: usize,
    /// Former secrets that were ended.
    pub retired: usize,
    /// Tenants whose fences were told again.
    pub fenced: usize,
    /// Objects that were deleted by their buckets' own rules.
    pub expired: Expired,
    /// Archives that were deleted at the end of their time.
    pub archives: usize,
    /// Checks that tenants are kept apart.
    pub isolation_checks: usize,
    /// Answers to requests that nobody sends again.
    pub answers: usize,
    /// Sign-in codes that nobody can use any more.
    pub codes: usize,
}

impl Control {
    /// Sweeps once. One part that fails does not keep the others from their turn.
    pub async fn sweep(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        for objects in self.shared.providers.iter().filter_map(|provider| provider.objects()) {
            match objects.expire(self.now()).await {
                Ok(expired) => {
                    swept.expired.objects += expired.objects;
                    swept.expired.bytes += expired.bytes;
                }
                Err(why) => tracing::warn!(%why, "buckets were not swept"),
            }
        }
        match self.fence_the_rest().await {
            Ok(told) => swept.fenced = told,
            Err(why) => tracing::warn!(%why, "fences were not told"),
        }
        match self.retire_due().await {
            Ok(ended) => swept.retired = ended,
            Err(why) => tracing::warn!(%why, "former secrets were not ended"),
        }
        match self.fence_again().await {
            Ok(told) => swept.fenced += told,
            Err(why) => tracing::warn!(%why, "nobody knows whether all fences hold"),
        }
        match self.sweep_archives().await {
            Ok(gone) => swept.archives = gone,
            Err(why) => tracing::warn!(%why, "archives were not swept"),
        }
        match self.check_isolation_if_due().await {
            Ok(checked) => swept.isolation_checks = usize::from(checked),
            Err(why) => {
                tracing::error!(%why, "nobody knows whether tenants are kept apart: the check failed")
            }
        }
        let (store, now) = (&self.shared.store, self.now());
        swept.answers = store.forget_answers(now - ANSWERS_KEPT).await.map_err(Error::unavailable)?;
        swept.codes = store.forget_codes(now).await.map_err(Error::unavailable)?;
        swept.renewals = self.renew_due().await?;
        Ok(swept)
    }
}
