//! Types that every crate uses: ids, slugs, the tenant lifecycle, plans and quotas, failure classes, time.
//! Pure: no I/O, and no dependency on another crate of this workspace.

pub mod access;
pub mod client_address;
pub mod columns;
pub mod error_code;
pub mod failure;
pub mod id;
pub mod isolation;
pub mod lifecycle;
pub mod member;
pub mod plan;
pub mod quota;
pub mod scope;
pub mod slug;
pub mod suspension;
pub mod text;
pub mod timestamp;
pub mod write;

pub use access::{AccessStatus, Denied};
pub use client_address::{ClientAddress, Network};
pub use columns::{Columns, Datum};
pub use error_code::ErrorCode;
pub use failure::{Failure, FailureClass};
pub use id::{Id, IdError, IdKind, TenantId};
pub use isolation::Isolation;
pub use lifecycle::{Event, IllegalTransition, TenantStatus};
pub use plan::{Catalogue, Plan};
pub use scope::{Permission, Scope};
pub use slug::{Slug, SlugError};
pub use timestamp::Timestamp;
pub use write::Write;
