//! Outage layer: names the provider in a failure that a retry may heal, and has the background task probe the provider.

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

impl Layer for Outage {
    fn wrap<'a>(&'a self, call: &'a Call<'a>, work: Work<'a>) -> Work<'a> {
        // A provider that only writes rows of the registry is never down; a probe is how an outage is confirmed.
        if call.transactional || call.verb == ProviderVerb::Probe {
            return work;
        }
        Box::pin(async move {
            let mut failure = match work.await {
                Err(failure) if failure.may_retry() && failure.answers == 0 => failure,
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
