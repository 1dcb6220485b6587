//! Onboarding: creates a tenant's resources by its template, tests the tenant, and activates it.

mod activate;
mod create;
mod customize;
mod look_alike;
mod plan;
pub mod request;
mod reserve;
mod smoke_test;
mod wait;

use serde_json::json;
use tenantry_engine::OnFailure;
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::{TenantStatus, Write, columns};

use super::{Operation, Transition};
use crate::error::ErrorView;
use crate::ledger::OperationKind;

pub(super) use activate::Activate;
pub use create::Created;
pub(super) use reserve::Reserve;
pub(super) use smoke_test::SmokeTest;
pub(super) use wait::Wait;

/// The operation that onboards a tenant.
pub(super) struct Onboard;

impl Operation for Onboard {
    fn kind(&self) -> OperationKind {
        OperationKind::Onboard
    }

    /// Unless the template or its step says otherwise.
    fn on_failure(&self) -> OnFailure {
        OnFailure::Rollback
    }

    /// An onboarding that was undone leaves the tenant `pending`, with its error, and writes
    /// `tenant.provisioning_failed`.
    fn on_transition(&self, change: &Transition<'_>) -> Vec<Write> {
        if !change.undoes() {
            return Vec::new();
        }
        let operation = &change.after.operation;
        let error = operation.error.as_ref().map(|e| ErrorView::of(e, operation.error_step.as_deref()));
        let status = next(TenantStatus::Provisioning, Event::RollBack).ok().map(|status| {
            Write::compare_and_set(
                "tenants",
                columns! { "id": change.tenant },
                columns! { "status": TenantStatus::Provisioning },
                columns! { "status": status, "last_error": error },
            )
        });
        let data = json!({
            "error": change.error_code(), "step": operation.error_step, "cancelled": operation.cancelled,
        });
        status.into_iter().chain([change.alert("tenant.provisioning_failed", data)]).collect()
    }
}
