//! The provider contract: kinds of resources with their settings and outputs, the verbs that every provider implements,
//! the capabilities that some have in addition, and what authors of providers need for them. Knows no particular provider.
//!
//! A provider needs:
//!
//! - a type that implements [`Provider`]: `ensure`, `observe`, `remove`, `probe`, each safe to repeat, and as many of the
//!   capabilities ([`Data`], [`Objects`], [`Fence`], [`Rotate`], [`Transfer`], [`Purge`], [`IsolationCheck`]) as it has;
//! - the settings of its kind from [`kinds`], read with [`settings`], and a type for its own, which a template gives under
//!   `with`;
//! - a `FACTORY` ([`ProviderFactory`]): the type's name, the schema of its configuration, and how instances are built;
//! - one line in the list of factories of the server that should have it.
//!
//! With the feature `conformance`, the module `conformance` is the suite that such a provider has to pass;
//! `examples/provider` in the repository is a whole provider with its test. For files, [`resource_folder`] has folders that appear as
//! a whole or not at all, [`resource_locks`] one piece of work per resource at a time, [`open_files`] a cache of open files,
//! [`connections`] a few connections whose calls block.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod connections;
pub mod csv;
pub mod data;
pub mod derived;
pub mod factory;
pub mod fence;
pub mod files;
pub mod hosts;
pub mod isolation;
pub mod kinds;
pub mod masks;
pub mod objects;
pub mod open_files;
pub mod passwords;
pub mod pipe;
pub mod purge;
pub mod registry;
pub mod resource_folder;
pub mod resource_locks;
pub mod rotate;
pub mod sealed_file;
pub mod seeds;
pub mod settings;
pub mod transfer;
pub mod verbs;

pub use data::{Canary, Data, Page, TenantRows};
pub use factory::{BuildContext, OwnDatabases, ProviderFactory};
pub use fence::{Fence, Order};
pub use isolation::{Cell, Checked, IsolationCheck, Outcome, Who};
pub use objects::{Objects, TenantObjects};
pub use purge::{Purge, Purged};
pub use registry::Registry;
pub use rotate::{Former, Retirement, Rotate, Rotated};
pub use transfer::Transfer;
pub use verbs::{
    Context, Ensured, Fault, Key, Kind, Notes, Observed, Ownership, Person, Provider, Removed, Rows, Sealer,
    Spec, Tenant,
};
