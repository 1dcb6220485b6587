//! Region layer: a provider receives data only in the regions that the operator has allowed it, whatever templates and
//! requests say. A request is checked when it is planned; this check is the last one before the data moves.

use std::sync::Arc;

use tenantry_model::Failure;

use super::{Call, Layer, Work};
use crate::resource::resources::Limits;

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
    Some(format!("{provider} makes nothing in {region}; it serves {known}"))
}

impl Layer for Region {
    fn wrap<'a>(&'a self, call: &'a Call<'a>, work: Work<'a>) -> Work<'a> {
        let region = call.region.filter(|_| call.verb.places_data());
        match region.and_then(|region| refusal(&self.limits, call.provider, region)) {
            None => work,
            Some(why) => {
                let message = format!("the data would leave its region: {why}");
                Box::pin(std::future::ready(Err(Failure::fatal("cross_border", message))))
            }
        }
    }
}
