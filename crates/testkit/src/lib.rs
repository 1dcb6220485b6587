//! What tests share: throw-away databases on both stores, and suites that every implementation of a trait must pass.
//!
//! A test whose server is missing says so through [`skip`] and returns; it never passes silently.

pub mod crash_ledger;
#[cfg(feature = "database")]
pub mod database;
pub mod ledger_contract;
#[cfg(feature = "database")]
pub mod markers;
#[cfg(feature = "database")]
pub mod own_postgres;
pub mod pooler;
#[cfg(feature = "database")]
pub mod raw;
pub mod report;
#[cfg(feature = "store")]
pub mod scan;
pub mod seed;
pub mod skip;
#[cfg(feature = "database")]
pub mod small_disk;
#[cfg(feature = "store")]
pub mod store;
pub mod virtual_clock;

#[cfg(feature = "database")]
pub use database::TestDatabase;
#[cfg(feature = "database")]
pub use raw::Raw;
#[cfg(feature = "store")]
pub use store::TestStore;
