//! Layers around every call of a provider, in one list: tracing, metrics, region check, outages, concurrency
//! limit, time limit.
//! A layer wraps the call and knows its verb, provider and region, but neither arguments nor results.

mod concurrency;
mod metrics;
mod outage;
mod region;
mod timeout;
mod tracing;
mod verb;

use std::pin::Pin;
use std::sync::Arc;

use tenantry_model::Failure;
use tenantry_model::id::ResourceId;

use concurrency::Concurrency;
pub(super) use concurrency::sharing;
use metrics::Metrics;
pub use metrics::{OnCall, ProviderCall};
use region::Region;
pub(super) use region::refusal;
pub(crate) use region::staying;
use verb::PermitClass;
pub use verb::ProviderVerb;

use super::outages::Outages;
use super::resources::Limits;

/// One call of a provider.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Name of the provider.
    pub provider: &'a str,
    /// Verb that is called.
    pub verb: ProviderVerb,
    /// Region of the resource; none for calls about the provider as a whole and for a tenant's own rows and objects.
    pub region: Option<&'a str>,
    /// Resource; none for calls about the provider as a whole.
    pub resource: Option<ResourceId>,
    /// Whether the provider only writes rows of the registry and calls no external system.
    pub transactional: bool,
}

/// The future of a call, already wrapped in the inner layers.
pub type Work<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// Wraps calls of providers.
pub trait Layer: Send + Sync {
    /// Returns the call wrapped in this layer.
    fn wrap<'a>(&'a self, call: &'a Call<'a>, work: Work<'a>) -> Work<'a>;
}

/// All layers, the outermost first.
pub struct Layers(Vec<Box<dyn Layer>>);

impl Layers {
    /// The list. A call that the region check rejects takes no permit; the wait for a permit, which the caller's own timeout
    /// bounds, does not count against the time limit of the verb.
    pub fn new(limits: &Arc<Limits>, outages: &Arc<Outages>, on_call: Option<OnCall>) -> Self {
        Self(vec![
            Box::new(tracing::Tracing),
            Box::new(Metrics::new(on_call)),
            Box::new(Region::new(limits.clone())),
            Box::new(outage::Outage::new(outages.clone())),
            Box::new(Concurrency::new(limits.clone())),
            Box::new(timeout::Timeout),
        ])
    }

    /// Runs a call of a provider inside of all layers.
    pub async fn run<T: Send>(
        &self,
        call: Call<'_>,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        let mut answer = None;
        let slot = &mut answer;
        let innermost: Work<'_> = Box::pin(async move {
            *slot = Some(work.await?);
            Ok(())
        });
        let layered = self.0.iter().rev().fold(innermost, |work, layer| layer.wrap(&call, work));
        layered.await?;
        answer.ok_or_else(|| Failure::unknown("no_answer", "a layer dropped the provider's answer"))
    }
}
