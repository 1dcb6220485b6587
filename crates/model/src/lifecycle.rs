//! The tenant lifecycle: one total function from status and event to the next status. It checks no permission
//! and no other condition.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Status of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    /// Registered without resources: the payment is not confirmed, or the onboarding was rolled back.
    Pending,
    /// The onboarding runs.
    Provisioning,
    /// Every resource exists and the smoke test has passed.
    Active,
    /// Suspended for at least one reason; data and infrastructure stay.
    Suspended,
    /// The offboarding runs: export, hold, deletion.
    Deprovisioning,
    /// Deleted; the row is a tombstone.
    Deprovisioned,
}

/// Event in the life of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The onboarding starts.
    Provision,
    /// The onboarding failed or was cancelled, and is compensated.
    RollBack,
    /// The onboarding is complete.
    Activate,
    /// The first reason for suspension was added.
    Suspend,
    /// The last reason for suspension was cleared.
    Resume,
    /// An offboarding or erasure was requested.
    Deprovision,
    /// The offboarding was cancelled during the hold, without a reason for suspension.
    ReconsiderActive,
    /// The offboarding was cancelled during the hold, with a reason for suspension.
    ReconsiderSuspended,
    /// Every resource is deleted and verified as absent.
    Delete,
}

/// The event does not apply in this status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tenant that is {status} cannot {event}")]
pub struct IllegalTransition {
    /// The tenant's status.
    pub status: TenantStatus,
    /// The rejected event.
    pub event: Event,
}

/// The status after `event`; an error when the event does not apply.
pub fn next(status: TenantStatus, event: Event) -> Result<TenantStatus, IllegalTransition> {
    use Event as E;
    use TenantStatus as S;
    match (status, event) {
        (S::Pending, E::Provision) => Ok(S::Provisioning),
        (S::Provisioning, E::Activate) => Ok(S::Active),
        (S::Provisioning, E::RollBack) => Ok(S::Pending),
        (S::Active, E::Suspend) => Ok(S::Suspended),
        (S::Suspended, E::Resume) => Ok(S::Active),
        (S::Pending | S::Provisioning | S::Active | S::Suspended, E::Deprovision) => Ok(S::Deprovisioning),
        (S::Deprovisioning, E::ReconsiderActive) => Ok(S::Active),
        (S::Deprovisioning, E::ReconsiderSuspended) => Ok(S::Suspended),
        (S::Deprovisioning, E::Delete) => Ok(S::Deprovisioned),
        (S::Pending, E::RollBack | E::Activate | E::Suspend | E::Resume)
        | (S::Provisioning, E::Provision | E::Suspend | E::Resume)
        | (S::Active, E::Provision | E::RollBack | E::Activate | E::Resume)
        | (S::Suspended, E::Provision | E::RollBack | E::Activate | E::Suspend)
        | (
            S::Deprovisioning,
            E::Provision | E::RollBack | E::Activate | E::Suspend | E::Resume | E::Deprovision,
        )
        | (
            S::Pending | S::Provisioning | S::Active | S::Suspended,
            E::ReconsiderActive | E::ReconsiderSuspended | E::Delete,
        )
        | (S::Deprovisioned, _) => Err(IllegalTransition { status, event }),
    }
}

impl TenantStatus {
    /// Every status, in the order of the lifecycle.
    pub const ALL: [TenantStatus; 6] = [
        Self::Pending,
        Self::Provisioning,
        Self::Active,
        Self::Suspended,
        Self::Deprovisioning,
        Self::Deprovisioned,
    ];

    /// The word used in the API, the tables and the CLI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deprovisioning => "deprovisioning",
            Self::Deprovisioned => "deprovisioned",
        }
    }
}

impl fmt::Display for TenantStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TenantStatus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("must be one of {}", Self::ALL.map(TenantStatus::as_str).join(", ")))
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Event; 9] = [
        Self::Provision,
        Self::RollBack,
        Self::Activate,
        Self::Suspend,
        Self::Resume,
        Self::Deprovision,
        Self::ReconsiderActive,
        Self::ReconsiderSuspended,
        Self::Delete,
    ];
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provision => "be provisioned",
            Self::RollBack => "be rolled back",
            Self::Activate => "be activated",
            Self::Suspend => "be suspended",
            Self::Resume => "be resumed",
            Self::Deprovision => "be deprovisioned",
            Self::ReconsiderActive | Self::ReconsiderSuspended => "be reconsidered",
            Self::Delete => "be deleted",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of ARCHITECTURE.md.
    #[test]
    fn transition_table() {
        let table: String = TenantStatus::ALL
            .into_iter()
            .flat_map(|s| Event::ALL.map(|e| (s, e)))
            .filter_map(|(s, e)| next(s, e).ok().map(|to| format!("{s} --{e:?}--> {to}\n")))
            .collect();
        insta::assert_snapshot!(table, @r"
        pending --Provision--> provisioning
        pending --Deprovision--> deprovisioning
        provisioning --RollBack--> pending
        provisioning --Activate--> active
        provisioning --Deprovision--> deprovisioning
        active --Suspend--> suspended
        active --Deprovision--> deprovisioning
        suspended --Resume--> active
        suspended --Deprovision--> deprovisioning
        deprovisioning --ReconsiderActive--> active
        deprovisioning --ReconsiderSuspended--> suspended
        deprovisioning --Delete--> deprovisioned
        ");
    }

    #[test]
    fn a_deprovisioning_tenant_cannot_be_resumed() {
        assert!(next(TenantStatus::Deprovisioning, Event::Resume).is_err());
        assert!(Event::ALL.iter().all(|e| next(TenantStatus::Deprovisioned, *e).is_err()));
    }

    #[test]
    fn words_round_trip() {
        for status in TenantStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
    }
}
