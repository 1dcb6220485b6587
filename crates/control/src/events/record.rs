//! Rows of the event and audit tables. They are written in the transaction of the fact that they tell, without a
//! number; the sealer numbers and chains them afterwards.

use serde_json::Value;
use tenantry_model::id::{AuditId, EventId, OperationId};
use tenantry_model::{TenantId, Timestamp, Write, columns};

/// A fact for everybody who listens.
#[derive(Clone, Debug)]
pub struct Fact {
    /// `tenant.provisioned` …
    pub kind: &'static str,
    /// Whom it is about.
    pub tenant: TenantId,
    /// Which operation brought it about.
    pub operation: Option<OperationId>,
    /// Its particulars, none of them personal.
    pub data: Value,
    /// Personal particulars, sealed.
    pub sealed: Option<String>,
}

/// The event's row.
pub fn event(fact: Fact, now: Timestamp) -> Write {
    Write::insert(
        "events",
        columns! {
        "id": EventId::new(), "seq": (), "tenant_id": fact.tenant, "type": fact.kind, "data": fact.data,
        "sealed": fact.sealed, "operation_id": fact.operation, "at": now },
    )
}

/// The row of an event that is about no single tenant.
pub fn fleet_event(kind: &'static str, data: Value, now: Timestamp) -> Write {
    Write::insert(
        "events",
        columns! {
        "id": EventId::new(), "seq": (), "tenant_id": (), "type": kind, "data": data, "sealed": (),
        "operation_id": (), "at": now },
    )
}

/// Something that somebody did.
#[derive(Clone, Debug)]
pub struct Deed<'a> {
    /// Who: a principal's id.
    pub actor: &'a str,
    /// What: `tenant.create` …
    pub action: &'static str,
    /// To which thing: an id.
    pub target: &'a str,
    /// Whose thing.
    pub tenant: Option<TenantId>,
    /// Particulars, none of them personal or secret.
    pub data: Value,
}

/// The audit row.
pub fn audit(deed: Deed<'_>, now: Timestamp) -> Write {
    Write::insert(
        "audit",
        columns! {
        "id": AuditId::new(), "seq": (), "tenant_id": deed.tenant, "actor": deed.actor, "action": deed.action,
        "target": deed.target, "data": deed.data, "sealed": (), "request_id": (), "at": now, "hash": () },
    )
}
