//! The access check: whether a tenant's status and suspensions allow an access. Pure; the control plane and
//! the guard share it.

use crate::lifecycle::TenantStatus;
use crate::suspension::{Access, Reason, SuspensionMode, Suspensions};

/// Status and suspensions of a tenant.
#[derive(Clone, Debug)]
pub struct AccessStatus {
    /// Status in the lifecycle.
    pub status: TenantStatus,
    /// Suspensions of the tenant; empty when it is not suspended.
    pub suspensions: Suspensions,
}

/// Why access is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The tenant is suspended.
    Suspended {
        /// Every reason, sorted.
        reasons: Vec<Reason>,
        /// The strictest mode of them.
        mode: Option<SuspensionMode>,
    },
    /// The tenant is neither active nor suspended.
    NotActive(TenantStatus),
}

impl Denied {
    /// True when payment alone restores access (HTTP 402 instead of 403).
    pub fn is_payment_required(&self) -> bool {
        matches!(self, Self::Suspended { reasons, .. } if reasons == &[Reason::Payment])
    }
}

impl AccessStatus {
    /// Checks one access. Returns an error unless the status and every suspension allow it; during the
    /// onboarding only the smoke test is allowed.
    pub fn check(&self, access: Access, smoke_test: bool) -> Result<(), Denied> {
        match self.status {
            TenantStatus::Provisioning if smoke_test => Ok(()),
            TenantStatus::Active => Ok(()),
            TenantStatus::Suspended if self.suspensions.mode().is_some_and(|mode| mode.allows(access)) => {
                Ok(())
            }
            TenantStatus::Suspended => Err(Denied::Suspended {
                reasons: self.suspensions.0.keys().copied().collect(),
                mode: self.suspensions.mode(),
            }),
            status => Err(Denied::NotActive(status)),
        }
    }
}
