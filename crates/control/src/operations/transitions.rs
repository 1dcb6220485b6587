//! Transition hooks: writes that are committed together with the change of an operation's state.

use serde_json::{Value, json};
use tenantry_engine::decide::SUPERSEDED;
use tenantry_engine::{Operation, OperationState, Run, StepState};
use tenantry_model::{Failure, TenantId, Timestamp, Write};

use super::registry::operation_of;
use crate::ledger::tenant_id;
use tenantry_store::record::{EventRecord, event};

/// A change of an operation's state.
pub(crate) struct Transition<'a> {
    /// The operation before the change; none if it is new.
    before: Option<&'a Operation>,
    /// The operation after the change.
    pub after: &'a Run,
    /// Tenant of the operation.
    pub tenant: TenantId,
    /// Time of the change.
    pub now: Timestamp,
}

impl Transition<'_> {
    /// Whether this change brought the operation into that state.
    pub fn enters(&self, state: OperationState) -> bool {
        self.after.operation.state == state && self.before.is_none_or(|before| before.state != state)
    }

    /// Whether this change ended the operation as rolled back or cancelled. False if another operation has superseded
    /// it, because that one decides the tenant's status.
    pub fn undoes(&self) -> bool {
        let error = self.after.operation.error.as_ref();
        let superseded = error.is_some_and(|error| error.code == SUPERSEDED);
        !superseded && (self.enters(OperationState::RolledBack) || self.enters(OperationState::Cancelled))
    }

    /// An event about the operation.
    pub fn event(&self, kind: &'static str, data: Value) -> Write {
        let operation = Some(self.after.operation.id);
        event(EventRecord { kind, tenant: self.tenant, operation, data, sealed: None }, self.now)
    }

    /// An event that an operator should see, which is logged as well.
    pub fn alert(&self, kind: &'static str, data: Value) -> Write {
        let Operation { id, error_step, .. } = &self.after.operation;
        tracing::error!(tenant = %self.tenant, operation = %id, step = error_step, "{kind}");
        self.event(kind, data)
    }

    /// The operation's error in the form of events. Events stay when a tenant is erased, so the message is left out: it may
    /// quote a name.
    pub fn error_code(&self) -> Option<Value> {
        self.after.operation.error.as_ref().map(coded)
    }
}

/// The writes of a change: those of every operation, and those of its kind.
pub(super) fn changed(before: Option<&Operation>, after: &Run, now: Timestamp) -> Vec<Write> {
    let operation = &after.operation;
    let Ok(tenant) = tenant_id(operation) else { return Vec::new() };
    let change = Transition { before, after, tenant, now };
    let mut effects = operation_of(operation).on_transition(&change);
    if change.enters(OperationState::NeedsAttention) {
        let failed =
            after.steps.iter().filter(|s| matches!(s.state, StepState::Failed | StepState::UndoFailed));
        let failed: Vec<Value> =
            failed.filter_map(|s| Some(json!({ "step": s.key, "code": s.error.as_ref()?.code }))).collect();
        let data = json!({ "kind": operation.kind, "error": change.error_code(), "steps": failed });
        effects.push(change.alert("operation.needs_attention", data));
    }
    if operation.stuck && before.is_some_and(|before| !before.stuck) {
        let running: Vec<&str> =
            after.steps.iter().filter(|s| !s.state.is_over()).map(|s| s.key.as_str()).collect();
        effects.push(change.alert("operation.stuck", json!({ "kind": operation.kind, "steps": running })));
    }
    effects
}

fn coded(failure: &Failure) -> Value {
    json!({ "code": failure.code })
}
