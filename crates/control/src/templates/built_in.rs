//! Built-in steps of templates, which run an action instead of calling a provider. They have one of these keys and no
//! `kind`; the key is the kind of the action.

/// Reserves a capacity slot for each resource of the template.
pub const RESERVE: &str = "reserve";
/// Tests the tenant before its activation.
pub const SMOKE_TEST: &str = "smoke_test";
/// Activates the tenant.
pub const ACTIVATE: &str = "activate";
/// Copies the content of the original tenant into a clone.
pub const CLONE: &str = "clone";

/// Built-in steps that a template may have.
pub const ALLOWED: [&str; 3] = [RESERVE, SMOKE_TEST, ACTIVATE];
/// Built-in steps that every template must have.
pub const REQUIRED: [&str; 2] = [SMOKE_TEST, ACTIVATE];
/// Step keys that no template may use, because the planner adds steps with these keys.
pub const RESERVED: [&str; 1] = [CLONE];
