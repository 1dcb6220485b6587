//! Identity: who may sign in.
//!
//! Every provider creates the first administrator once, hands its secret out through the registry's credentials and never
//! as an output, and overwrites no member that exists.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KindSettings;
use crate::verbs::Kind;

/// Name of the credential that is the token of the first administrator's invitation.
pub const INVITATION_TOKEN: &str = "invitation_token";
/// Name of the credential that is the first administrator's password.
pub const ONE_TIME_PASSWORD: &str = "one_time_password";

/// What a step says of a tenant's members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentitySettings {
    /// How the first administrator signs in for the first time.
    #[serde(default)]
    pub first_admin: FirstAdmin,
}

impl KindSettings for IdentitySettings {
    const KIND: Kind = Kind::Identity;
    const KEYS: &'static [&'static str] = &["first_admin"];
}

/// How the first administrator signs in for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FirstAdmin {
    /// With a link that works once.
    #[default]
    Invitation,
    /// With a password that must be changed at the first sign-in.
    OneTimePassword,
}

/// What is known of a tenant's members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IdentityOutputs {
    /// Role of the first administrator.
    pub role: String,
    /// How the first administrator signs in for the first time.
    pub first_admin: FirstAdmin,
}
