//! What the registry is told when an operation's state has changed, in the transaction that changes it.

use serde_json::{Value, json};
use tenantry_engine::decide::SUPERSEDED;
use tenantry_engine::{Operation, OperationState, Run, StepState};
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::{Failure, TenantStatus, Timestamp, Write, columns};

use super::input::{ONBOARD, REPAIR, tenant_id};
use super::keeps;
use crate::record::{Fact, event};
use crate::view::ErrorView;

/// The rows that follow from the operation's change.
pub(super) fn changed(before: Option<&Operation>, after: &Run, now: Timestamp) -> Vec<Write> {
    let operation = &after.operation;
    let mut effects = Vec::new();
    let Ok(tenant) = tenant_id(operation) else { return effects };
    let entered = |state| operation.state == state && before.is_none_or(|b| b.state != state);
    let error = operation.error.as_ref().map(|e| ErrorView::of(e, operation.error_step.as_deref()));
    let alert = |kind, data| {
        let fact = Fact { kind, tenant, operation: Some(operation.id), data, sealed: None };
        tracing::error!(tenant = %tenant, operation = %operation.id, step = operation.error_step, "{kind}");
        event(fact, now)
    };
    // Whoever has taken over says what becomes of the tenant.
    let superseded = operation.error.as_ref().is_some_and(|error| error.code == SUPERSEDED);
    let undone = !superseded && (entered(OperationState::RolledBack) || entered(OperationState::Cancelled));
    if undone && operation.kind == ONBOARD && operation.parent.is_none() {
        if let Ok(status) = next(TenantStatus::Provisioning, Event::RollBack) {
            effects.push(Write::compare_and_set(
                "tenants",
                columns! { "id": tenant },
                columns! { "status": TenantStatus::Provisioning },
                columns! { "status": status, "last_error": error },
            ));
        }
        let data = json!({ "error": operation.error.as_ref().map(coded), "cancelled": operation.cancelled });
        effects.push(alert("tenant.provisioning_failed", data));
    }
    if entered(OperationState::Succeeded) && keeps(operation) {
        let steps: Vec<&str> = after.steps.iter().map(|step| step.key.as_str()).collect();
        let data = json!({ "steps": steps });
        let kind = if operation.kind == REPAIR { "tenant.repaired" } else { "tenant.credentials_rotated" };
        effects.push(event(Fact { kind, tenant, operation: Some(operation.id), data, sealed: None }, now));
    }
    if entered(OperationState::NeedsAttention) {
        let failed =
            after.steps.iter().filter(|s| matches!(s.state, StepState::Failed | StepState::UndoFailed));
        let failed: Vec<Value> =
            failed.filter_map(|s| Some(json!({ "step": s.key, "code": s.error.as_ref()?.code }))).collect();
        let error = operation.error.as_ref().map(coded);
        let data = json!({ "kind": operation.kind, "error": error, "steps": failed });
        effects.push(alert("operation.needs_attention", data));
    }
    if operation.stuck && before.is_some_and(|b| !b.stuck) {
        let running: Vec<&str> =
            after.steps.iter().filter(|s| !s.state.is_over()).map(|s| s.key.as_str()).collect();
        effects.push(alert("operation.stuck", json!({ "kind": operation.kind, "steps": running })));
    }
    effects
}

/// A failure as an event tells it, which stays when its tenant is erased: the message may quote a name.
fn coded(failure: &Failure) -> Value {
    json!({ "code": failure.code })
}
