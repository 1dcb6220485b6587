//! `Resources`: the providers of this process, each behind a handle, with the limits that the operator has set for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tenantry_model::ErrorCode;

use tenantry_model::{Failure, Isolation};
use tenantry_provider::{Kind, Provider, Registry};
use tokio::sync::Semaphore;

use super::handle::ResourceHandle;
use super::layers::{Layers, OnCall, refusal, sharing};
use super::outages::Outages;
use crate::error::{Error, FieldError, Result};

/// Regions in which a provider may place data, by provider name. A provider without an entry may use all regions.
pub type Regions = BTreeMap<String, BTreeSet<String>>;
/// Maximum number of concurrent calls, by provider name. A provider without an entry has no limit.
pub type ConcurrencyLimits = BTreeMap<String, u32>;

/// The operator's limits for providers.
pub(super) struct Limits {
    pub regions: Regions,
    pub concurrency: BTreeMap<String, Permits>,
}

/// Concurrency permits of one provider: for work such as `ensure`, and for access control such as fences.
pub(super) struct Permits {
    pub work: Semaphore,
    pub control: Semaphore,
}

/// The providers of this process, each behind a [`ResourceHandle`], which is the only way to call it.
pub struct Resources {
    limits: Arc<Limits>,
    outages: Arc<Outages>,
    handles: BTreeMap<String, ResourceHandle>,
    /// The same handles in the order of their configuration.
    registry: Registry,
}

impl Resources {
    /// Creates a handle with these limits for each provider; `on_call` receives every call that has ended. Returns an
    /// error with all faults if a limit names a provider that does not exist.
    pub fn new(
        providers: Registry,
        regions: Regions,
        concurrency: &ConcurrencyLimits,
        on_call: Option<OnCall>,
    ) -> Result<Self> {
        let tables = [
            ("regions", regions.keys().collect()),
            ("executor.at_once", concurrency.keys().collect::<Vec<_>>()),
        ];
        let named =
            tables.into_iter().flat_map(|(table, names)| names.into_iter().map(move |name| (table, name)));
        let unknown = named.filter(|(_, name)| providers.get(name).is_none());
        let faults: Vec<FieldError> = unknown
            .map(|(table, name)| {
                let known: Vec<_> = providers.iter().map(|provider| provider.name()).collect();
                let message = format!("no provider has this name; the providers are {}", known.join(", "));
                FieldError::new(format!("{table}.{name}"), message)
            })
            .collect();
        if !faults.is_empty() {
            return Err(Error::invalid(ErrorCode::ConfigInvalid, faults));
        }
        let permits = |(name, calls): (&String, &u32)| {
            let semaphore = || Semaphore::new(*calls as usize);
            (name.clone(), Permits { work: semaphore(), control: semaphore() })
        };
        let concurrency = concurrency.iter().map(permits).collect();
        let limits = Arc::new(Limits { regions, concurrency });
        let outages = Arc::default();
        let layers = Arc::new(Layers::new(&limits, &outages, on_call));
        let mut handles = BTreeMap::new();
        let registry = providers.map(|provider| {
            let handle = ResourceHandle::new(provider, layers.clone());
            handles.insert(handle.name().to_owned(), handle.clone());
            Arc::new(handle)
        });
        Ok(Self { limits, outages, handles, registry })
    }

    /// The provider of this name.
    pub fn get(&self, name: &str) -> Option<&ResourceHandle> {
        self.handles.get(name)
    }

    /// The provider that serves a template's step of this kind: the one that it names, or the first that fits.
    pub fn serving(&self, kind: Kind, name: Option<&str>, isolation: Isolation) -> Option<&ResourceHandle> {
        match name {
            Some(name) => self.get(name),
            None => self.get(self.registry.default_for(kind, isolation)?.name()),
        }
    }

    /// All providers, by name.
    pub fn iter(&self) -> impl Iterator<Item = &ResourceHandle> {
        self.handles.values()
    }

    /// Why the provider may not place data in this region; none if it may.
    pub fn refusal(&self, provider: &str, region: &str) -> Option<String> {
        refusal(&self.limits, provider, region)
    }

    /// Runs work that calls these providers side by side, where the calls wait for each other, as a clone's export and load
    /// do: with one permit of each provider for all of it.
    pub async fn sharing<T>(
        &self,
        providers: &[&str],
        work: impl Future<Output = T>,
    ) -> std::result::Result<T, Failure> {
        sharing(&self.limits, providers, work).await
    }

    /// Which providers are down.
    pub(crate) fn outages(&self) -> &Outages {
        &self.outages
    }

    /// The handles as a `Registry`, against which templates are checked.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}
