//! The use cases of the control plane: tenants and their operations, members, API keys, events, templates. They do not
//! depend on a transport; the server maps them to HTTP.

pub mod access;
pub mod background;
pub mod billing;
pub mod control;
pub mod error;
pub mod events;
pub mod isolation;
pub mod ledger;
pub mod members;
pub mod operations;
pub mod process;
pub mod resource;
pub mod stats;
pub mod templates;
pub mod tenants;

pub use access::{Caller, Permission, Scope};
pub use access::{idempotency, keys};
pub use control::page::PageQuery;
pub use control::rate::Rate;
pub use control::token::{TenantSession, TokenView};
pub use control::{Control, ControlConfig, Front, SessionLimits, WeakControl};
pub use error::{Error, ErrorKind, FieldError, Result};
pub use idempotency::{Answered, IdempotencyKey};
pub use members::{objects, sign_in};
pub use operations::OperationQuery;
pub use operations::onboard::Created;
pub use process::{Parts, doctor};
pub use resource::capacity;
pub use stats::meter::{self, Meter};
pub use templates::{self as template, shape};
pub use tenants::TenantQuery;
pub use tenants::{drift, status, suspension};

/// Response types of the use cases.
pub mod view {
    pub use crate::access::keys::{KeyView, NewKeyView};
    pub use crate::control::page::Page;
    pub use crate::error::ErrorView;
    pub use crate::events::EventView;
    pub use crate::operations::view::*;
    pub use crate::tenants::view::*;
}
