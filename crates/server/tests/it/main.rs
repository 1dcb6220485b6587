//! End-to-end tests of the binary: over HTTP, on the command line and by signals. Each server is a process of
//! its own on a free port; tests that depend on the registry run on both databases.

mod authority;
mod bad_input;
mod cli;
mod clones;
mod clusters;
mod databases;
mod demo;
mod exports;
mod golden;
mod guide;
mod idempotency;
mod isolation;
mod kills;
mod limits;
mod offboarding;
mod operations;
mod plans;
mod postgres_schemas;
mod process;
mod replicas;
mod restarts;
mod retrying_client;
mod rotation;
mod server;
mod sessions;
mod shares;
mod sign_in;
mod stats;
mod status;
mod store_migrate;
mod streams;
mod suspension;
mod templates;
mod tenants;
