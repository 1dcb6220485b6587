//! Leaving: a tenant is deleted for good, and that is proven (GDPR Art. 17). It loses access in the transaction that
//! begins it; whatever operation runs is taken over, with what it has made so far; nothing is ever undone.

pub mod certificate;
pub(crate) mod plan;
mod steps;
mod wipe;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_engine::{CommitError, Operation, OperationState, Run, Signal, SignalKind};
use tenantry_model::id::{OperationId, SignalId};
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::{TenantId, TenantStatus, Timestamp, Write, columns};
use tenantry_providers::Rows as _;

use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, ErrorKind, FieldError, Result};
use crate::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::onboard::id_of;
use crate::record::{Deed, Fact, audit, event};
use crate::steps::OperationInput;
use crate::store::{News, Rejected, Unit, entity, signal_row};
use crate::view::OperationView;
use certificate::PublicKeyView;

/// The kind of an operation that deletes a tenant at once.
pub const ERASE: &str = "erase";

/// How often an end is planned again because something of the tenant changed meanwhile.
const TRIES: u32 = 20;
/// How long an end may take before it counts as stuck.
const EXPECTED: Duration = Duration::from_secs(3_600);
/// Longest reason.
const MAX_REASON: usize = 500;

/// A demand for deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseTenant {
    /// Why. It is kept for ever, so it should name nobody.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
}

impl Control {
    /// Begins to delete a tenant for good, in whatever state it is. One that is being deleted, or is gone, gives the
    /// operation that does it, or did.
    pub async fn erase(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        what: &EraseTenant,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        caller.require(Permission::WriteTenants)?;
        refuse_bad_reason(&what.reason)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let once = key.map(|key| Once::new(caller, &key, &format!("erase {}", row.id), &json!(what)));
        match self.once(once.as_ref(), self.try_erase(caller, row, what, once.as_ref())).await? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => self.answered_before(&answer).await,
        }
    }

    /// Erases again whom the keyring's journal names and the registry, restored from a backup, still has. To be called
    /// before anything is served.
    pub(crate) async fn erase_again(&self) -> Result<()> {
        let journal = self.shared.keyring.erasures().await.map_err(Error::unavailable)?;
        // Small pieces: a query has a bounded number of parameters.
        for erasures in journal.chunks(500) {
            let ids: Vec<String> = erasures.iter().map(|erasure| erasure.tenant.to_string()).collect();
            let living = self.shared.store.living(&ids).await.map_err(Error::unavailable)?;
            for erasure in erasures.iter().filter(|erasure| living.contains(&erasure.tenant.to_string())) {
                let caller = Caller { principal: erasure.requested_by.clone(), ..Caller::system() };
                let what = EraseTenant { reason: erasure.reason.clone() };
                let row = self.tenant_row(&caller, &erasure.tenant.to_string()).await?;
                let begun = self.try_erase(&caller, row, &what, None).await?;
                tracing::warn!(tenant = %erasure.tenant, operation = %begun.id, "erased before, and erased again");
            }
        }
        Ok(())
    }

    /// The certificate of a tenant's deletion, as it is handed out: its keys are sorted.
    pub async fn certificate(&self, caller: &Caller, id_or_slug: &str) -> Result<Value> {
        caller.require(Permission::ReadTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let found = self.shared.store.certificate_of(&row.id).await.map_err(Error::unavailable)?;
        let found = found.ok_or_else(|| {
            let message =
                format!("the tenant is {}: there is a certificate once its deletion is proven", row.status);
            Error::new(ErrorKind::NotFound, "certificate_not_found", message)
        })?;
        certificate::document(&found, &self.certificate_key().await?)
    }

    /// The public key that certificates are checked with.
    pub async fn certificate_public_key(&self) -> Result<PublicKeyView> {
        Ok(certificate::public_key(&self.certificate_key().await?))
    }

    async fn certificate_key(&self) -> Result<crate::keyring::SigningKey> {
        self.shared.keyring.signing_key(certificate::KEY).await.map_err(Error::unavailable)
    }

    async fn try_erase(
        &self,
        caller: &Caller,
        mut row: entity::tenant::Model,
        what: &EraseTenant,
        once: Option<&Once>,
    ) -> Result<OperationView> {
        let tenant = id_of(&row)?;
        for _ in 0..TRIES {
            let runs = self.shared.store.runs_of(&row.id).await.map_err(Error::unavailable)?;
            let status: TenantStatus = row.status.parse().map_err(Error::internal)?;
            if let Some(run) = runs.iter().rev().find(|run| deletes_already(run)) {
                self.remember(once, tenant, run.operation.id).await?;
                return self.operation_view(run).await;
            }
            let after = match status {
                TenantStatus::Deprovisioning => status,
                status => next(status, Event::Deprovision)
                    .map_err(|why| Error::conflict("illegal_transition", why))?,
            };
            let recorded = self.shared.store.resources_of(&row.id).await.map_err(Error::unavailable)?;
            let steps = plan::deletion(&runs, &recorded)?;
            let input = self.input_of(&row, caller, &what.reason)?;
            let now = self.now();
            let operation = Operation {
                expected_by: Some(now + EXPECTED),
                ..Operation::new(OperationId::new(), &row.id, ERASE, input, now)
            };
            let id = operation.id;
            let others: Vec<OperationId> = unfinished(&runs).collect();
            let mut effects = vec![Write::compare_and_set(
                "tenants",
                columns! { "id": tenant },
                columns! { "status": status, "version": row.version },
                columns! { "status": after },
            )];
            effects.extend(self.leaving_records(caller, tenant, &operation, what, now));
            effects.extend(others.iter().map(|other| signal_row(*other, &supersede(id, now))));
            effects.extend(self.revoked(tenant).await?);
            effects.extend(once.map(|once| once.guard(&json!({ "operation_id": id }), Some(tenant), now)));
            match self.shared.executor.submit(Run { operation, steps }, effects).await {
                Ok(run) => {
                    self.wake(&others);
                    self.supersede_late(tenant, id, &others).await?;
                    return self.operation_view(&run).await;
                }
                // Something of this tenant came first: as it is now, then.
                Err(CommitError::Conflict { .. } | CommitError::Stale) => {
                    if let Some(once) = once
                        && self.made_before(once).await?.is_some()
                    {
                        break;
                    }
                    row = self.tenant_row(caller, &row.id).await?;
                }
                Err(why) => return Err(Error::unavailable(why)),
            }
        }
        Err(Error::conflict("tenant_busy", "the tenant changes all the time; try again"))
    }

    /// What the operation remembers. Nothing of it is personal: it works without the tenant's key.
    fn input_of(&self, row: &entity::tenant::Model, caller: &Caller, reason: &str) -> Result<Value> {
        let input = OperationInput {
            plan: row.plan.clone(),
            template: row.template.clone(),
            template_version: u32::try_from(row.template_version).unwrap_or_default(),
            region: row.region.clone(),
            locale: row.locale.clone(),
            generation: 0,
            sealed: String::new(),
            begun_by: caller.principal.clone(),
            reason: Some(reason.to_owned()),
        };
        serde_json::to_value(input).map_err(Error::internal)
    }

    fn leaving_records(
        &self,
        caller: &Caller,
        tenant: TenantId,
        operation: &Operation,
        what: &EraseTenant,
        now: Timestamp,
    ) -> [Write; 2] {
        let id = tenant.to_string();
        let deed = Deed {
            actor: &caller.principal,
            action: "tenant.erase",
            target: &id,
            tenant: Some(tenant),
            data: json!({ "operation_id": operation.id, "reason": what.reason }),
        };
        let fact = Fact {
            kind: "tenant.deprovisioning",
            tenant,
            operation: Some(operation.id),
            data: json!({ "kind": operation.kind }),
            sealed: None,
        };
        [audit(deed, now), event(fact, now)]
    }

    /// The tenant's people come in no more with what they were given. Its tokens and API keys are refused for its status.
    async fn revoked(&self, tenant: TenantId) -> Result<Vec<Write>> {
        let codes = self.shared.store.find("sign_in_codes", &[("tenant_id", json!(tenant))]).await;
        let codes = codes.map_err(Error::unavailable)?;
        Ok(codes.iter().map(|row| Write::delete("sign_in_codes", columns! { "hash": row["hash"] })).collect())
    }

    /// Remembers an answer that nothing was done for.
    async fn remember(&self, once: Option<&Once>, tenant: TenantId, operation: OperationId) -> Result<()> {
        let Some(once) = once else { return Ok(()) };
        let guard = once.guard(&json!({ "operation_id": operation }), Some(tenant), self.now());
        match self.shared.store.commit(Unit::new(vec![guard])).await {
            Ok(()) | Err(Rejected::Conflict { .. }) => Ok(()),
            Err(why) => Err(Error::unavailable(why)),
        }
    }

    /// Operations of the tenant that began while its end did. From here on none can: none begins for one that leaves.
    async fn supersede_late(&self, tenant: TenantId, by: OperationId, told: &[OperationId]) -> Result<()> {
        let runs = self.shared.store.runs_of(&tenant.to_string()).await.map_err(Error::unavailable)?;
        for late in unfinished(&runs).filter(|id| *id != by && !told.contains(id)) {
            let signal = supersede(by, self.now());
            self.shared.executor.signal(late, signal, Vec::new()).await.map_err(Error::unavailable)?;
        }
        Ok(())
    }

    /// Signals were left for these operations.
    fn wake(&self, operations: &[OperationId]) {
        operations.iter().for_each(|id| self.shared.executor.hint(*id));
        self.shared.store.tell(News::Operations(operations.to_vec()));
    }
}

/// Whether an operation deletes its tenant, or has: another one would only start over.
fn deletes_already(run: &Run) -> bool {
    let operation = &run.operation;
    let ended = operation.state.is_final() && operation.state != OperationState::Succeeded;
    operation.parent.is_none() && operation.kind == ERASE && !ended
}

fn unfinished(runs: &[Run]) -> impl Iterator<Item = OperationId> {
    runs.iter().map(|run| &run.operation).filter(|operation| !operation.state.is_final()).map(|o| o.id)
}

fn supersede(by: OperationId, at: Timestamp) -> Signal {
    Signal { id: SignalId::new(), kind: SignalKind::Supersede, by: by.to_string(), at }
}

fn refuse_bad_reason(reason: &str) -> Result<()> {
    let length = reason.chars().count();
    if reason.trim().is_empty() || length > MAX_REASON || reason.chars().any(char::is_control) {
        let message = "is required: 1 to 500 characters, no control characters";
        return Err(Error::invalid("request_invalid", vec![FieldError::new("reason", message)]));
    }
    Ok(())
}
