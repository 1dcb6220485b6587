//! Tests of the contract suites: each accepts a correct implementation and rejects a faulty one.

mod ledger_contract;
