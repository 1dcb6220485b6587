//! Tests of the registry and the keyring, on both databases.

mod keyring;
mod ledger;
mod moving;
mod store_anchoring;
mod store_faults;
mod store_reads;
mod store_schema;
mod store_sealing;
mod store_writer;
