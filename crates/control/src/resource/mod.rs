//! Tenants' resources as they are now: the handle through which every provider is called, and the use cases that look at
//! resources, fence them and serve what is in them.

pub mod capacity;
pub mod doctor;
pub mod drift;
mod fences;
mod handle;
mod layers;
pub mod objects;
mod resources;
pub mod status;

pub use handle::ResourceHandle;
pub(crate) use layers::staying;
pub use layers::{OnCall, PermitClass, ProviderCall, ProviderVerb};
pub use resources::{ConcurrencyLimits, Regions, Resources};
