//! Why a tenant is suspended, and what is denied to it meanwhile (S0.11, S1.29-32, design §5).
//!
//! Reasons come and go each on its own; the strictest grade among them counts. Data and infrastructure stay in every one.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// Why. Whoever suspends for one reason cannot clear another one by accident.
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

/// What is denied, each more than the one before.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Writing.
    ReadOnly,
    /// Signing in, and whatever tokens of people allow, those too that they have already.
    NoLogin,
    /// Everything.
    Blocked,
}

/// A way in which a tenant's people and programs come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// With a code, a password or an invitation, for a token.
    SignIn,
    /// With a token, to read.
    Read,
    /// With a token, to write.
    Write,
    /// With a signed address, to read.
    ReadSigned,
    /// With a signed address, to write.
    WriteSigned,
}

impl Grade {
    /// The word used in the API and the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::NoLogin => "no_login",
            Self::Blocked => "blocked",
        }
    }

    /// Whether somebody comes in all the same.
    pub const fn allows(self, access: Access) -> bool {
        match self {
            Self::ReadOnly => matches!(access, Access::SignIn | Access::Read | Access::ReadSigned),
            Self::NoLogin => matches!(access, Access::ReadSigned | Access::WriteSigned),
            Self::Blocked => false,
        }
    }
}

impl FromStr for Grade {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::ReadOnly, Self::NoLogin, Self::Blocked]
            .into_iter()
            .find(|grade| grade.as_str() == text)
            .ok_or_else(|| "must be one of read_only, no_login, blocked".to_owned())
    }
}

/// One suspension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Suspension {
    /// What it denies.
    pub grade: Grade,
    /// Since when.
    pub since: Timestamp,
    /// Who said so: a principal's id.
    pub by: String,
}

/// Every suspension of a tenant, one for a reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Suspensions(pub BTreeMap<Reason, Suspension>);

impl Suspensions {
    /// The strictest grade; none if the tenant is not suspended.
    pub fn grade(&self) -> Option<Grade> {
        self.0.values().map(|suspension| suspension.grade).max()
    }

    /// When the first of those that hold began.
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
    fn grades_deny_what_they_say() {
        let allowed = |grade: Grade| ALL.map(|access| grade.allows(access));
        assert_eq!(allowed(Grade::ReadOnly), [true, true, false, true, false]);
        assert_eq!(allowed(Grade::NoLogin), [false, false, false, true, true]);
        assert_eq!(allowed(Grade::Blocked), [false; 5]);
    }

    #[test]
    fn the_strictest_counts_until_its_reason_is_gone() {
        let of =
            |grade, micros| Suspension { grade, since: Timestamp::from_micros(micros), by: "x".to_owned() };
        let mut all = Suspensions::default();
        assert_eq!((all.grade(), all.since()), (None, None));
        all.0.insert(Reason::Quota, of(Grade::ReadOnly, 5));
        all.0.insert(Reason::Payment, of(Grade::Blocked, 9));
        assert_eq!((all.grade(), all.since()), (Some(Grade::Blocked), Some(Timestamp::from_micros(5))));
        all.0.remove(&Reason::Payment);
        assert_eq!(all.grade(), Some(Grade::ReadOnly));
    }

    #[test]
    fn words_are_those_of_the_documents() {
        for reason in [Reason::Payment, Reason::Policy, Reason::Admin, Reason::Quota] {
            assert_eq!(serde_json::json!(reason), reason.as_str());
        }
        for grade in [Grade::ReadOnly, Grade::NoLogin, Grade::Blocked] {
            assert_eq!(serde_json::json!(grade), grade.as_str());
            assert_eq!(grade.as_str().parse(), Ok(grade));
        }
    }
}
