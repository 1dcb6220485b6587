//! Files that only a key opens, in the form that Tink's libraries read too: written and read in constant memory, from any
//! byte on. Knows no tenants and no keys but the one that it is given.

pub mod cipher;
pub mod stream;
