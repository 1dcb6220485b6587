//! Members of tenants: how they sign in, the tokens that they get, and what a session may reach.

pub(crate) mod jwt;
pub mod session;
pub mod sign_in;
pub(crate) mod token;
