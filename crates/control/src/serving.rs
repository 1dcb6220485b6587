//! Where a provider serves, and how many calls at a time: limits that the operator sets, whatever templates and requests
//! say. A region is checked when the plan is made, and again before every call that makes something (S4.126-128).

use std::collections::{BTreeMap, BTreeSet};

use tenantry_model::Failure;
use tenantry_provider::{Provider, Registry};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, FieldError, Result};

/// By provider, the regions in which what it makes lies. One that is not named serves them all.
pub type Regions = BTreeMap<String, BTreeSet<String>>;
/// By provider, how many calls may be under way at the same time. One that is not named has no limit.
pub type AtOnce = BTreeMap<String, u32>;

/// The limits of all providers.
pub struct Serving {
    regions: Regions,
    at_once: BTreeMap<String, Semaphore>,
}

impl Serving {
    /// These limits. Fails with every name that is no provider's.
    pub fn new(regions: Regions, at_once: &AtOnce, providers: &Registry) -> Result<Self> {
        let tables =
            [("regions", regions.keys().collect()), ("executor.at_once", at_once.keys().collect::<Vec<_>>())];
        let named =
            tables.into_iter().flat_map(|(table, names)| names.into_iter().map(move |name| (table, name)));
        let unknown = named.filter(|(_, name)| providers.get(name).is_none());
        let faults: Vec<FieldError> = unknown
            .map(|(table, name)| {
                let known: Vec<_> = providers.iter().map(|provider| provider.name()).collect();
                let message = format!("there is no such provider; there are {}", known.join(", "));
                FieldError::new(format!("{table}.{name}"), message)
            })
            .collect();
        if !faults.is_empty() {
            return Err(Error::invalid("config_invalid", faults));
        }
        let semaphore = |(name, calls): (&String, &u32)| (name.clone(), Semaphore::new(*calls as usize));
        Ok(Self { regions, at_once: at_once.iter().map(semaphore).collect() })
    }

    /// Why the provider makes nothing in this region, if it does not.
    pub fn refusal(&self, provider: &str, region: &str) -> Option<String> {
        let regions = self.regions.get(provider).filter(|regions| !regions.contains(region))?;
        let known = Vec::from_iter(regions.iter().map(String::as_str)).join(", ");
        Some(format!("{provider} makes nothing in {region}; it serves {known}"))
    }

    /// Fails if what the provider makes would lie outside of the region.
    pub fn check(&self, provider: &str, region: &str) -> std::result::Result<(), Failure> {
        match self.refusal(provider, region) {
            None => Ok(()),
            Some(why) => {
                Err(Failure::fatal("cross_border", format!("the data would leave its region: {why}")))
            }
        }
    }

    /// Waits for a place among the calls to the provider; it is given back when dropped. What only writes the registry's
    /// rows has no calls.
    pub async fn place(&self, provider: &dyn Provider) -> Option<SemaphorePermit<'_>> {
        let limit = self.at_once.get(provider.name()).filter(|_| !provider.transactional())?;
        limit.acquire().await.ok()
    }
}
