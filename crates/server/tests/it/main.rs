//! Tests of the binary as its users meet it: over HTTP, on the command line, by signals. Each server is a process of
//! its own on a free port; what concerns the registry runs on both stores.

mod asked_again;
mod authority;
mod bad_input;
mod cli;
mod clones;
mod clusters;
mod customers;
mod databases;
mod demo;
mod exports;
mod golden;
mod guide;
mod idempotency;
mod isolation;
mod kills;
mod leaving;
mod moving;
mod operations;
mod plans;
mod process;
mod replicas;
mod restarts;
mod rotation;
mod server;
mod sign_in;
mod stats;
mod status;
mod streams;
mod suspension;
mod templates;
mod tenants;
