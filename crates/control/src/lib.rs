//! The use cases of the control plane: templates and planner, onboarding, operations, members, events, audit; the
//! store with all its SQL, and the keyring. No transport: the server maps these words to HTTP.

pub mod access;
pub mod capacity;
pub mod control;
pub mod doctor;
pub mod drift;
pub mod error;
mod eta;
pub mod events;
mod fences;
pub mod idempotency;
pub mod isolation;
pub mod keys;
pub mod ledger;
pub mod meter;
pub mod objects;
pub mod operations;
pub mod page;
mod record;
mod replica;
mod secret;
pub mod serving;
pub mod session;
pub mod shape;
pub mod sign_in;
pub mod stats;
pub mod status;
pub mod suspension;
pub mod sweep;
pub mod template;
pub mod tenants;
mod token;
pub mod view;

pub use access::{Caller, Permission, Scope};
pub use control::{Control, ControlConfig, Parts, WeakControl};
pub use error::{Error, ErrorKind, FieldError, Result};
pub use idempotency::{Answered, IdempotencyKey};
pub use meter::Meter;
pub use operations::OperationQuery;
pub use operations::onboard::{Created, Front};
pub use page::PageQuery;
pub use session::TenantSession;
pub use sign_in::TokenView;
pub use tenants::TenantQuery;
