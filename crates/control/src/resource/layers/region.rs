//! Region layer: a provider receives data only in the regions that the operator has allowed it, whatever templates and
//! requests say. A request is checked when it is planned; this check is the last one before the data moves.

use std::sync::Arc;

use tenantry_model::Failure;

use super::{Call, Layer, Work};
use crate::resource::resources::Limits;

tokio::task_local! {
    /// Set around work that places no data in a region that did not hold it.
    static STAYS: ();
}

/// Runs work that places no data where it was not before: a backup's rehearsal beside the resource that it copies, or the
/// reversal of a removal. It passes the region check, so that a provider which serves a region no longer can still back up,
/// offboard and bring back what it holds there.
pub async fn staying<T>(work: impl Future<Output = T>) -> T {
    STAYS.scope((), work).await
}

/// Rejects calls that would place data outside of the provider's regions, with the fatal failure `cross_border`.
pub struct Region {
    limits: Arc<Limits>,
}

impl Region {
    /// With the regions of these limits.
    pub fn new(limits: Arc<Limits>) -> Self {
        Self { limits }
    }
}

/// Why the provider may not place data in this region; none if it may.
pub fn refusal(limits: &Limits, provider: &str, region: &str) -> Option<String> {
    let regions = limits.regions.get(provider).filter(|regions| !regions.contains(region))?;
    let known = Vec::from_iter(regions.iter().map(String::as_str)).join(", ");
    Some(format!("the provider {provider} does not serve the region {region}; it serves {known}"))
}

impl Layer for Region {
    fn wrap<'a>(&'a self, call: &'a Call<'a>, work: Work<'a>) -> Work<'a> {
        let stays = STAYS.try_with(|()| ()).is_ok();
        let region = call.region.filter(|_| call.verb.places_data() && !stays);
        match region.and_then(|region| refusal(&self.limits, call.provider, region)) {
            None => work,
            Some(why) => {
                let message = format!("the data would leave its region: {why}");
                Box::pin(std::future::ready(Err(Failure::fatal("cross_border", message).untouched())))
            }
        }
    }
}
