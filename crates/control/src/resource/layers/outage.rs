//! Outage layer: names the provider in a failure that a retry may heal, and has the background task probe the provider,
//! also after a call that its caller cut off.

use std::sync::Arc;
use std::time::Duration;

use super::{Call, Layer, ProviderVerb, Work};
use crate::resource::outages::Outages;

/// Shortest time until the next attempt at a provider that is known to be down. The end of the outage wakes the step earlier.
const PAUSE: Duration = Duration::from_secs(60);

/// The layer.
pub struct Outage {
    outages: Arc<Outages>,
}

impl Outage {
    /// Reports failed calls to these outages.
    pub fn new(outages: Arc<Outages>) -> Self {
        Self { outages }
    }
}

/// A call in progress. Dropped before the call has ended, for example by the timeout of its step, it has the provider probed.
struct Running<'a> {
    outages: &'a Outages,
    provider: &'a str,
    ended: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.outages.suspect(self.provider);
        }
    }
}

impl Layer for Outage {
    fn wrap<'a>(&'a self, call: &'a Call<'a>, work: Work<'a>) -> Work<'a> {
        // A provider that only writes rows of the registry is never down; a probe is how an outage is confirmed.
        if call.transactional || call.verb == ProviderVerb::Probe {
            return work;
        }
        Box::pin(async move {
            let mut running = Running { outages: &self.outages, provider: call.provider, ended: false };
            let done = work.await;
            running.ended = true;
            let mut failure = match done {
                Err(failure) if failure.may_retry() && failure.wrong_answers == 0 => failure,
                done => return done,
            };
            if self.outages.suspect(call.provider) {
                let asked = failure.retry_after_ms.map_or(Duration::ZERO, Duration::from_millis);
                failure = failure.after(PAUSE.max(asked));
            }
            failure.provider.get_or_insert_with(|| call.provider.to_owned());
            Err(failure)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test]
    async fn a_call_that_is_cut_off_is_a_suspicion() {
        let outages = Arc::<Outages>::default();
        let layer = Outage::new(outages.clone());
        let (provider, verb) = ("postgres", ProviderVerb::Ensure);
        let call = Call { provider, verb, region: None, resource: None, transactional: false };
        layer.wrap(&call, Box::pin(async { Ok(()) })).await.unwrap();
        let mut hangs = layer.wrap(&call, Box::pin(std::future::pending()));
        assert!(futures::poll!(&mut hangs).is_pending());
        assert_eq!(outages.to_probe(), BTreeSet::new());
        drop(hangs);
        assert_eq!(outages.to_probe(), BTreeSet::from(["postgres".to_owned()]));
    }
}
