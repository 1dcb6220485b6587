//! The access check: whether a tenant's status and suspensions allow a request. Pure; the control plane and the guard
//! share it.

use crate::lifecycle::TenantStatus;
use crate::suspension::{Access, Grade, Reason, Suspensions};

/// What of a tenant decides about access.
#[derive(Clone, Debug)]
pub struct Standing {
    /// State in the lifecycle.
    pub status: TenantStatus,
    /// Reasons for which it is suspended; empty while it is not.
    pub suspensions: Suspensions,
}

/// Why access is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The tenant is suspended.
    Suspended {
        /// All reasons, sorted.
        reasons: Vec<Reason>,
        /// The strictest grade among them.
        grade: Option<Grade>,
    },
    /// The tenant is not active, and not suspended either.
    NotActive(TenantStatus),
}

impl Denied {
    /// Whether paying alone would restore access (HTTP 402 rather than 403).
    pub fn is_payment_required(&self) -> bool {
        matches!(self, Self::Suspended { reasons, .. } if reasons == &[Reason::Payment])
    }
}

impl Standing {
    /// Checks one access. Before the tenant is active only the smoke test passes.
    pub fn check(&self, access: Access, smoke_test: bool) -> Result<(), Denied> {
        match self.status {
            TenantStatus::Provisioning if smoke_test => Ok(()),
            TenantStatus::Active => Ok(()),
            TenantStatus::Suspended if self.suspensions.grade().is_some_and(|grade| grade.allows(access)) => {
                Ok(())
            }
            TenantStatus::Suspended => Err(Denied::Suspended {
                reasons: self.suspensions.0.keys().copied().collect(),
                grade: self.suspensions.grade(),
            }),
            status => Err(Denied::NotActive(status)),
        }
    }
}
