//! Integration tests of the database providers, on real files and a real server: the contract that all providers
//! keep, and what each provider does beyond it.

mod lookup_tables;
mod postgres;
mod postgres_administrator;
mod postgres_any_schema;
mod postgres_clusters;
mod postgres_disk;
mod postgres_drift;
mod postgres_drift_shape;
mod postgres_extensions;
mod postgres_failover;
mod postgres_failures;
mod postgres_fences;
mod postgres_fuzz;
mod postgres_in_use;
mod postgres_isolation;
mod postgres_leaks;
mod postgres_migrations;
mod postgres_obstruction;
mod postgres_partitions;
mod postgres_pool_tables;
mod postgres_pool_triggers;
mod postgres_probes;
mod postgres_removal;
mod postgres_rotation;
mod postgres_several_schemas;
mod postgres_trial;
mod postgres_warm_pool;
mod sqlite_file;
mod sqlite_pool;
mod sqlite_pool_load;
mod transfer;

use tenantry_provider::conformance::{self as contract, world};
