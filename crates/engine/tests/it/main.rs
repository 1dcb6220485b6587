//! The engine's tests: pure decisions by table and by property, and the executor on a ledger in memory with a
//! virtual clock and scripted steps.

mod backward;
mod chaos;
mod crash;
mod executor;
mod forward;
mod ledger_faults;
mod plan;
mod properties;
mod scene;
mod signals;
mod standby;
mod steering;
mod story;
mod world;
