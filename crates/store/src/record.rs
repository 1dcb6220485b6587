//! Rows of the event and audit tables. They are written in the transaction of the change that they record, without a
//! number; the sealer numbers and chains them afterwards.

use serde_json::Value;
use tenantry_model::id::{AuditId, EventId, OperationId};
use tenantry_model::{TenantId, Timestamp, Write, columns};

/// An event.
#[derive(Clone, Debug)]
pub struct EventRecord {
    /// `tenant.provisioned` …
    pub kind: &'static str,
    /// The tenant.
    pub tenant: TenantId,
    /// The operation that caused it.
    pub operation: Option<OperationId>,
    /// Data without personal data.
    pub data: Value,
    /// Personal data, sealed.
    pub sealed: Option<String>,
}

/// The event's row.
pub fn event(event_record: EventRecord, now: Timestamp) -> Write {
    Write::insert(
        "events",
        columns! {
        "id": EventId::new(), "seq": (), "tenant_id": event_record.tenant, "type": event_record.kind, "data": event_record.data,
        "sealed": event_record.sealed, "operation_id": event_record.operation, "at": now },
    )
}

/// The row of an event about the fleet.
pub fn fleet_event(kind: &'static str, data: Value, now: Timestamp) -> Write {
    Write::insert(
        "events",
        columns! {
        "id": EventId::new(), "seq": (), "tenant_id": (), "type": kind, "data": data, "sealed": (),
        "operation_id": (), "at": now },
    )
}

/// An action of a principal, for the audit trail.
#[derive(Clone, Debug)]
pub struct AuditRecord<'a> {
    /// Id of the principal.
    pub actor: &'a str,
    /// Action: `tenant.create` …
    pub action: &'static str,
    /// Id of the object.
    pub target: &'a str,
    /// Tenant of the object.
    pub tenant: Option<TenantId>,
    /// Data without personal data and secrets.
    pub data: Value,
}

/// The audit row.
pub fn audit(audited: AuditRecord<'_>, now: Timestamp) -> Write {
    Write::insert(
        "audit",
        columns! {
        "id": AuditId::new(), "seq": (), "tenant_id": audited.tenant, "actor": audited.actor, "action": audited.action,
        "target": audited.target, "data": audited.data, "sealed": (), "request_id": (), "at": now, "hash": () },
    )
}
