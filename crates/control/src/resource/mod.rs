//! Tenants' resources: the handle through which every provider is called, the capacity of regions, and the store of
//! archives. No use cases: those that look at resources are in `tenants`, those that serve what is in them in `members`.

mod archive_store;
pub mod capacity;
mod handle;
mod layers;
mod outages;
mod resources;

pub use archive_store::ArchiveStore;
pub use handle::ResourceHandle;
pub(crate) use layers::staying;
pub use layers::{OnCall, ProviderCall, ProviderVerb};
pub(crate) use outages::{OutageChange, OutageRecord, Outages};
pub use resources::{ConcurrencyLimits, Regions, Resources};
