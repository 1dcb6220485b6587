//! Integration tests of the providers: the contract, and what only real processes and files can show.
