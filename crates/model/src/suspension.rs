//! Suspension of a tenant: reasons, each with a mode. Reasons are added and cleared independently; the
//! strictest mode applies. Data and infrastructure stay in every mode.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// Reason of a suspension. Each is cleared separately.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// An invoice is not paid.
    Payment,
    /// The terms of use are broken.
    Policy,
    /// An administrator's decision.
    Admin,
    /// A quota is exceeded.
    Quota,
}

impl Reason {
    /// The word used in the API and the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Policy => "policy",
            Self::Admin => "admin",
            Self::Quota => "quota",
        }
    }
}

/// Mode of a suspension, in ascending strictness.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SuspensionMode {
    /// Denies writes.
    ReadOnly,
    /// Denies sign-ins and tokens of members, issued ones included. Signed addresses still work.
    NoLogin,
    /// Denies every access.
    Blocked,
}

/// Kind of access to a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A sign-in with a code, a password or an invitation.
    SignIn,
    /// A read with a token.
    Read,
    /// A write with a token.
    Write,
    /// A read with a signed address.
    ReadSigned,
    /// A write with a signed address.
    WriteSigned,
}

impl SuspensionMode {
    /// The word used in the API and the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::NoLogin => "no_login",
            Self::Blocked => "blocked",
        }
    }

    /// True when this mode allows the access.
    pub const fn allows(self, access: Access) -> bool {
        match self {
            Self::ReadOnly => matches!(access, Access::SignIn | Access::Read | Access::ReadSigned),
            Self::NoLogin => matches!(access, Access::ReadSigned | Access::WriteSigned),
            Self::Blocked => false,
        }
    }
}

impl FromStr for SuspensionMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::ReadOnly, Self::NoLogin, Self::Blocked]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| "must be one of read_only, no_login, blocked".to_owned())
    }
}

/// A suspension for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Suspension {
    /// Denied access. Registries of earlier versions call it `grade`.
    #[serde(alias = "grade")]
    pub mode: SuspensionMode,
    /// Start of the suspension.
    pub since: Timestamp,
    /// Id of the caller that suspended the tenant.
    pub by: String,
}

/// The suspensions of a tenant by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Suspensions(pub BTreeMap<Reason, Suspension>);

impl Suspensions {
    /// The strictest mode; none when the tenant is not suspended.
    pub fn mode(&self) -> Option<SuspensionMode> {
        self.0.values().map(|suspension| suspension.mode).max()
    }

    /// Start of the oldest suspension that is not cleared.
    pub fn since(&self) -> Option<Timestamp> {
        self.0.values().map(|suspension| suspension.since).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Access; 5] =
        [Access::SignIn, Access::Read, Access::Write, Access::ReadSigned, Access::WriteSigned];

    #[test]
    fn modes_deny_access() {
        let allowed = |mode: SuspensionMode| ALL.map(|access| mode.allows(access));
        assert_eq!(allowed(SuspensionMode::ReadOnly), [true, true, false, true, false]);
        assert_eq!(allowed(SuspensionMode::NoLogin), [false, false, false, true, true]);
        assert_eq!(allowed(SuspensionMode::Blocked), [false; 5]);
    }

    #[test]
    fn the_strictest_mode_applies_until_its_reason_is_cleared() {
        let of =
            |mode, micros| Suspension { mode, since: Timestamp::from_micros(micros), by: "x".to_owned() };
        let mut all = Suspensions::default();
        assert_eq!((all.mode(), all.since()), (None, None));
        all.0.insert(Reason::Quota, of(SuspensionMode::ReadOnly, 5));
        all.0.insert(Reason::Payment, of(SuspensionMode::Blocked, 9));
        assert_eq!(
            (all.mode(), all.since()),
            (Some(SuspensionMode::Blocked), Some(Timestamp::from_micros(5)))
        );
        all.0.remove(&Reason::Payment);
        assert_eq!(all.mode(), Some(SuspensionMode::ReadOnly));
    }

    #[test]
    fn words_equal_their_serialized_form() {
        for reason in [Reason::Payment, Reason::Policy, Reason::Admin, Reason::Quota] {
            assert_eq!(serde_json::json!(reason), reason.as_str());
        }
        for mode in [SuspensionMode::ReadOnly, SuspensionMode::NoLogin, SuspensionMode::Blocked] {
            assert_eq!(serde_json::json!(mode), mode.as_str());
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
    }
}
