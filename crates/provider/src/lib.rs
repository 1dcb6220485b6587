//! The provider contract: resource kinds, the verbs that every provider implements, the capabilities that some have in
//! addition, and what authors of providers need for them. Knows no particular provider.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod csv;
pub mod data;
pub mod derived;
pub mod factory;
pub mod fence;
pub mod files;
pub mod hosts;
pub mod isolation;
pub mod kinds;
pub mod lanes;
pub mod masks;
pub mod objects;
pub mod open_files;
pub mod passwords;
pub mod pipe;
pub mod place;
pub mod portable;
pub mod registry;
pub mod rotate;
pub mod sealed_file;
pub mod seeds;
pub mod settings;
pub mod verbs;

pub use data::{Canary, Data, Page, TenantRows};
pub use factory::{BuildContext, ProviderFactory};
pub use fence::{Fence, Order};
pub use isolation::{Cell, Checked, IsolationCheck, Outcome, Who};
pub use objects::{Objects, TenantObjects};
pub use portable::Portable;
pub use registry::Registry;
pub use rotate::{Former, Retirement, Rotate, Rotated};
pub use verbs::{
    Context, Ensured, Fault, Key, Kind, Notes, Observed, Person, Provider, Removed, Rows, Sealer, Spec,
    Tenant,
};
