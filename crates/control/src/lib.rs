//! The use cases of the control plane: templates and planner, onboarding, operations, members, events, audit; the
//! store with all its SQL, and the keyring. No transport: the server maps these words to HTTP.

pub mod access;
pub mod background;
pub mod control;
pub mod error;
pub mod events;
pub mod isolation;
mod leader;
pub mod ledger;
pub mod members;
pub mod operations;
pub mod page;
pub mod resource;
pub mod stats;
pub mod templates;
pub mod tenants;

pub use access::{Caller, Permission, Scope};
pub use access::{idempotency, keys};
pub use control::{Control, ControlConfig, Parts, WeakControl};
pub use error::{Error, ErrorKind, FieldError, Result};
pub use idempotency::{Answered, IdempotencyKey};
pub use members::{session, sign_in};
pub use operations::OperationQuery;
pub use operations::onboard::{Created, Front};
pub use page::PageQuery;
pub use resource::{capacity, doctor, drift, objects, status};
pub use session::TenantSession;
pub use sign_in::TokenView;
pub use stats::meter::{self, Meter};
pub use templates::{self as template, shape};
pub use tenants::TenantQuery;
pub use tenants::{suspension, view};
