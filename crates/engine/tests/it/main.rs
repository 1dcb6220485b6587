//! The engine's tests: the pure decisions by table and by property, and the executor on a ledger in memory, with a
//! clock of its own and steps that do as they are told.

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
