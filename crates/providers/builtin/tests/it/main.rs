//! Integration tests of the built-in providers: the contract that all of them keep, tests of the contract suite, and
//! tests on real files, processes and sockets.

mod broken;
mod certificate;
mod conform;
mod conform_folders;
mod dns;
mod exec;
mod http;
mod service;
mod stored;
mod transfer;

use tenantry_provider::conformance::{self as contract, world};
