//! Tests of the control plane through its public face, on both stores.

mod archives;
mod capacity;
mod crash;
mod crash_leaving;
mod faulty;
mod fences;
mod keyring;
mod leaving;
mod ledger;
mod mixed;
mod offboard;
mod onboard;
mod repair;
mod replicas;
mod scan;
mod serving;
mod shelf;
mod stats;
mod status;
mod store_faults;
mod store_reads;
mod store_schema;
mod store_sealing;
mod store_writer;
mod story;
mod world;
