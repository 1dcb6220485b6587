//! Suspending and resuming tenants: each reason is added and cleared on its own, in one transaction, in every status in
//! which there is access to deny. Every access check reads the tenant's status from the registry, so a change holds from the
//! next request on, whichever process serves it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_model::ErrorCode;
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::suspension::{Reason, Suspension, SuspensionMode, Suspensions};
use tenantry_model::{Denied, TenantStatus, Timestamp, Write, columns};

use crate::access::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::ledger::id_of;
use crate::tenants::view::{SuspensionView, TenantView};
use tenantry_store::record::{AuditRecord, EventRecord, audit, event};
use tenantry_store::{Rejected, WriteBatch, entity};

/// Attempts at a change that conflicts with other changes of the same tenant.
const TRIES: u32 = 20;

/// A suspension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuspendTenant {
    /// Reason. A second suspension for the same reason replaces the first.
    pub reason: Reason,
    /// Access that is denied.
    #[serde(default = "everything")]
    pub mode: SuspensionMode,
}

fn everything() -> SuspensionMode {
    SuspensionMode::Blocked
}

/// The end of a suspension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResumeTenant {
    /// Reason to clear; without it, all reasons.
    pub reason: Option<Reason>,
}

/// The error of a denied access: 402 if paying restores it, 403 otherwise.
impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        let code = match &denied {
            Denied::Suspended { .. } if denied.is_payment_required() => ErrorCode::PaymentRequired,
            Denied::Suspended { .. } => ErrorCode::TenantSuspended,
            Denied::NotActive(_) => ErrorCode::TenantNotActive,
        };
        match denied {
            Denied::Suspended { reasons, mode } => {
                let reasons: Vec<_> = reasons.iter().map(|reason| reason.as_str()).collect();
                let mode = mode.map_or("", SuspensionMode::as_str);
                let message =
                    format!("the tenant is suspended (reason: {}, mode: {mode})", reasons.join(", "));
                Self::new(code, message)
            }
            Denied::NotActive(status) => Self::new(code, format!("the tenant is {status}")),
        }
    }
}

impl Control {
    /// Adds a reason for suspension, or changes its mode.
    pub async fn suspend(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        what: SuspendTenant,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<SuspensionView>> {
        let suspension = |since| Suspension { mode: what.mode, since, by: caller.principal.clone() };
        let change = |suspensions: &mut Suspensions, now| {
            let held = suspensions.0.entry(what.reason).or_insert_with(|| suspension(now));
            if held.mode != what.mode {
                *held = Suspension { since: held.since, ..suspension(now) };
            }
        };
        self.change(caller, id_or_slug, "tenant.suspend", json!(what), key, change).await
    }

    /// Clears a reason for suspension, or all of them. Succeeds without a change if there is no such reason.
    pub async fn resume(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        what: ResumeTenant,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<SuspensionView>> {
        let change = |suspensions: &mut Suspensions, _| match what.reason {
            Some(reason) => drop(suspensions.0.remove(&reason)),
            None => suspensions.0.clear(),
        };
        self.change(caller, id_or_slug, "tenant.resume", json!(what), key, change).await
    }

    async fn change(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        action: &'static str,
        what: serde_json::Value,
        key: Option<IdempotencyKey>,
        change: impl Fn(&mut Suspensions, Timestamp),
    ) -> Result<Answered<SuspensionView>> {
        caller.require(Permission::WriteTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let id = row.id.clone();
        let once = key.map(|key| Once::new(caller, &key, &format!("{action} {id}"), &what));
        let done =
            self.once(once.as_ref(), self.try_change(caller, row, action, &what, once.as_ref(), change));
        let replayed = matches!(done.await?, Outcome::Before(_));
        let row = self.tenant_row(caller, &id).await?;
        let tenant = TenantView::try_from(row.clone())?;
        let fences = self.fence(row).await?;
        Ok(Answered { value: SuspensionView { tenant, fences }, replayed })
    }

    async fn try_change(
        &self,
        caller: &Caller,
        mut row: entity::tenant::Model,
        action: &'static str,
        what: &serde_json::Value,
        once: Option<&Once>,
        change: impl Fn(&mut Suspensions, Timestamp),
    ) -> Result<()> {
        let tenant = id_of(&row)?;
        for _ in 0..TRIES {
            let now = self.now();
            let before: Suspensions =
                serde_json::from_value(row.suspensions.clone()).map_err(Error::internal)?;
            let mut after = before.clone();
            change(&mut after, now);
            let status: TenantStatus = row.status.parse().map_err(Error::internal)?;
            let status = status_with(status, &after)?;
            let mut writes: Vec<Write> = once
                .map(|once| once.guard(&json!({ "tenant_id": tenant }), Some(tenant), now))
                .into_iter()
                .collect();
            if after != before {
                let data = json!({ "asked": what, "mode": after.mode(), "reasons": reasons(&after) });
                let audited = AuditRecord {
                    actor: &caller.principal,
                    action,
                    target: &row.id,
                    tenant: Some(tenant),
                    data,
                };
                let kind = if after.0.is_empty() { "tenant.resumed" } else { "tenant.suspended" };
                let data = json!({ "mode": after.mode(), "reasons": reasons(&after) });
                let event_record = EventRecord { kind, tenant, operation: None, data, sealed: None };
                let since = after.since().filter(|_| status == TenantStatus::Suspended);
                let denied = denied(status, &after).map(SuspensionMode::as_str);
                let mut now_so = columns! {
                    "status": status, "suspensions": after, "suspended_at": since, "denied": denied,
                };
                if !self.has_fences() {
                    now_so.set("fenced", &denied);
                }
                writes.extend([
                    Write::compare_and_set(
                        "tenants",
                        columns! { "id": tenant },
                        columns! { "version": row.version },
                        now_so,
                    ),
                    audit(audited, now),
                ]);
                // A tenant that is being deleted is denied everything already.
                if status != TenantStatus::Deprovisioning {
                    writes.push(event(event_record, now));
                }
            }
            if writes.is_empty() {
                return Ok(());
            }
            match self.shared.store.commit(WriteBatch::new(writes)).await {
                Ok(()) => return Ok(()),
                // Another change of this tenant was committed first: try again with the present row.
                Err(Rejected::Stale { .. }) => row = self.tenant_row(caller, &row.id).await?,
                Err(why) => return Err(Error::unavailable(why)),
            }
        }
        Err(Error::new(ErrorCode::TenantBusy, "concurrent changes of this tenant; try again"))
    }
}

/// Access that is denied to a tenant's database logins: all of it during deletion, whatever the reasons are.
pub(crate) fn denied(status: TenantStatus, suspensions: &Suspensions) -> Option<SuspensionMode> {
    match status {
        TenantStatus::Deprovisioning => Some(SuspensionMode::Blocked),
        TenantStatus::Suspended => suspensions.mode(),
        _ => None,
    }
}

/// The status of a tenant with these reasons. During onboarding and deletion the reasons are kept, and apply when the tenant
/// is active again; a resume never ends a deletion.
fn status_with(status: TenantStatus, suspensions: &Suspensions) -> Result<TenantStatus> {
    let event = match (status, suspensions.0.is_empty()) {
        (TenantStatus::Provisioning | TenantStatus::Deprovisioning, _)
        // A reason that was added during an onboarding that was rolled back can be cleared.
        | (TenantStatus::Pending | TenantStatus::Active, true)
        | (TenantStatus::Suspended, false) => return Ok(status),
        (_, false) => Event::Suspend,
        (_, true) => Event::Resume,
    };
    next(status, event).map_err(|why| {
        let message = format!("{why}; allowed statuses: provisioning, active, suspended, deprovisioning");
        Error::new(ErrorCode::IllegalTransition, message)
    })
}

fn reasons(suspensions: &Suspensions) -> Vec<Reason> {
    suspensions.0.keys().copied().collect()
}
