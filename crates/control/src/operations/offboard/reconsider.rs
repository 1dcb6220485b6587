//! Reconsidering: brings a tenant back during the hold of its offboarding. Cancelling the offboarding undoes its few steps; no
//! resource with content was touched.

use serde_json::json;
use tenantry_engine::{Run, Signal, SignalKind};
use tenantry_model::ErrorCode;
use tenantry_model::id::SignalId;
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::suspension::{SuspensionMode, Suspensions};
use tenantry_model::{TenantStatus, Write, columns};

use super::deletion::{TRIES, holds};
use crate::access::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::ledger::{OperationKind, id_of};
use crate::tenants::suspension::denied;
use crate::tenants::view::TenantView;
use tenantry_store::record::{AuditRecord, EventRecord, audit, event};
use tenantry_store::{Rejected, WriteBatch, entity, signal_row};

impl Control {
    /// Brings back a tenant that is in its hold: active, or suspended if it still has reasons for that.
    pub async fn reconsider(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<TenantView>> {
        caller.require(Permission::WriteTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let id = row.id.clone();
        let once = key.map(|key| Once::new(caller, &key, &format!("reconsider {id}"), &json!(null)));
        let done = self.once(once.as_ref(), self.bring_back(caller, row, once.as_ref())).await?;
        let value = self.tenant_row(caller, &id).await?.try_into()?;
        Ok(Answered { value, replayed: matches!(done, Outcome::Before(_)) })
    }

    async fn bring_back(
        &self,
        caller: &Caller,
        mut row: entity::tenant::Model,
        once: Option<&Once>,
    ) -> Result<()> {
        let tenant = id_of(&row)?;
        for _ in 0..TRIES {
            let runs = self.shared.store.runs_of(&row.id).await.map_err(Error::unavailable)?;
            let status: TenantStatus = row.status.parse().map_err(Error::internal)?;
            let Run { operation, .. } = in_hold(status, &runs)?;
            let suspensions: Suspensions =
                serde_json::from_value(row.suspensions.clone()).map_err(Error::internal)?;
            let happens = match suspensions.0.is_empty() {
                true => Event::ReconsiderActive,
                false => Event::ReconsiderSuspended,
            };
            let after = next(status, happens).map_err(|why| Error::new(ErrorCode::IllegalTransition, why))?;
            let now = self.now();
            let by = caller.principal.clone();
            let signal = Signal { id: SignalId::new(), kind: SignalKind::Cancel, by, at: now };
            let audited = AuditRecord {
                actor: &caller.principal,
                action: "tenant.reconsider",
                target: &row.id,
                tenant: Some(tenant),
                data: json!({ "operation_id": operation.id }),
            };
            let event_record = EventRecord {
                kind: "tenant.reconsidered",
                tenant,
                operation: Some(operation.id),
                data: json!({ "status": after }),
                sealed: None,
            };
            let mut writes = vec![
                // If the hold ends at the same time, the later of the two commits is rejected.
                Write::compare_and_set(
                    "operations",
                    columns! { "id": operation.id },
                    columns! { "version": operation.version },
                    columns! {},
                ),
                Write::compare_and_set(
                    "tenants",
                    columns! { "id": tenant },
                    columns! { "version": row.version },
                    columns! {
                        "status": after, "suspended_at": suspensions.since(),
                        "denied": denied(after, &suspensions).map(SuspensionMode::as_str),
                    },
                ),
                signal_row(operation.id, &signal),
                audit(audited, now),
                event(event_record, now),
            ];
            writes.extend(once.map(|once| once.guard(&json!({ "tenant_id": tenant }), Some(tenant), now)));
            match self.shared.store.commit(WriteBatch::new(writes)).await {
                Ok(()) => {
                    self.wake(&[operation.id]);
                    self.fence_in_time(&row.id).await;
                    return Ok(());
                }
                Err(Rejected::Stale { .. }) => row = self.tenant_row(caller, &row.id).await?,
                Err(why) => return Err(Error::unavailable(why)),
            }
        }
        Err(Error::new(ErrorCode::TenantBusy, "concurrent changes of this tenant; try again"))
    }
}

/// The offboarding that holds the tenant. Fails if there is none.
fn in_hold(status: TenantStatus, runs: &[Run]) -> Result<&Run> {
    let why = match status {
        TenantStatus::Deprovisioning => {
            let offboards = |run: &&Run| OperationKind::of(&run.operation) == OperationKind::Offboard;
            let run = runs.iter().filter(offboards).find(|run| !run.operation.state.is_final() && holds(run));
            match run {
                Some(run) if !run.operation.cancelled => return Ok(run),
                _ => "its hold is over, or an erasure has begun".to_owned(),
            }
        }
        TenantStatus::Deprovisioned => "it is deleted".to_owned(),
        status => format!("it is {status}"),
    };
    Err(Error::new(ErrorCode::IllegalTransition, format!("the offboarding cannot be reversed: {why}")))
}
