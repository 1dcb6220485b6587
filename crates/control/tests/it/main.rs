//! Tests of the control plane through its public face, on both stores.

mod keyring;
mod ledger;
mod store_reads;
mod store_schema;
mod store_sealing;
mod store_writer;
