//! Integration tests of the providers: the contract that all of them keep, tests of the contract suite, and
//! tests on real files, processes and sockets.

mod broken;
mod certificate;
mod children;
mod conform;
mod conform_folders;
mod dns;
mod exec;
mod http;
mod pool;
mod postgres;
mod postgres_clusters;
mod postgres_disk;
mod postgres_drift;
mod postgres_failover;
mod postgres_failures;
mod postgres_fences;
mod postgres_isolation;
mod postgres_leaks;
mod postgres_partitions;
mod postgres_rotation;
mod postgres_spares;
mod service;
mod stored;
mod transfer;

use tenantry_provider::conformance::{self as contract, world};
