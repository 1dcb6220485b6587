//! Steps that Tenantry does itself. In a template they have one of these keys instead of a `kind`; the key is the kind of
//! the action that runs.

/// Reserves slots for everything that is made.
pub const RESERVE: &str = "reserve";
/// Tests the tenant before its activation.
pub const SMOKE_TEST: &str = "smoke_test";
/// Activates the tenant.
pub const ACTIVATE: &str = "activate";
/// Copies the content of a clone's original.
pub const CLONE: &str = "clone";

/// Those that a template may have.
pub const ALLOWED: [&str; 3] = [RESERVE, SMOKE_TEST, ACTIVATE];
/// Those that every template must have.
pub const REQUIRED: [&str; 2] = [SMOKE_TEST, ACTIVATE];
/// Those that no template may have: plans made from it get a step of this key.
pub const RESERVED: [&str; 1] = [CLONE];
