//! Members of tenants: their rows and rules, how they are invited and sign in, and what a session may reach. The identity resource of a tenant
//! is its members; `provider` serves it.

mod bearer;
mod invite;
pub mod objects;
mod provider;
mod rows;
pub mod sessions;
pub mod sign_in;
mod transfer;

pub use invite::{InvitationView, InviteMember};
pub use provider::{Config, FACTORY, IdentityBuiltin};
