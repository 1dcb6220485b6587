//! Test fixtures of every crate: temporary databases and registries on SQLite and PostgreSQL, contract
//! suites, a virtual clock, crash tests, and searches for leftovers. A test whose server is missing reports
//! it through [`skip`].

pub mod children;
pub mod crash_ledger;
#[cfg(feature = "database")]
pub mod database;
pub mod gate;
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
