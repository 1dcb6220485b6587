//! Identity resources: the organization of a tenant's members.
//!
//! Every provider creates the first administrator once, stores the secret as a credential in the registry and never in
//! an output, and does not overwrite an existing member.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KindSettings;
use crate::verbs::Kind;

/// Name of the credential that is the token of the first administrator's invitation.
pub const INVITATION_TOKEN: &str = "invitation_token";
/// Name of the credential that is the first administrator's password.
pub const ONE_TIME_PASSWORD: &str = "one_time_password";

/// Settings of an identity step.
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
    /// With a generated password, which is marked `must_change_password`.
    OneTimePassword,
}

/// Outputs of an identity resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IdentityOutputs {
    /// Role of the first administrator.
    pub role: String,
    /// How the first administrator signs in for the first time.
    pub first_admin: FirstAdmin,
}
