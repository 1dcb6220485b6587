//! Members of tenants: how they sign in, and what a session may reach.

pub mod objects;
pub mod session;
pub mod sign_in;
