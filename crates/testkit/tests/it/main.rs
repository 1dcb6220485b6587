//! Tests of the suites themselves: they pass what is right and fail what is wrong.

mod ledger_contract;
