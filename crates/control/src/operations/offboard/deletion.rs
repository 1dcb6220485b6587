//! Requests that end a tenant. It loses access in the transaction that begins the operation; other operations of the tenant
//! are superseded, and the resources that they created are deleted with the others.

use std::time::Duration;
use tenantry_model::ErrorCode;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_engine::{CommitError, Mode, Operation as Row, Policy, Run, Signal, SignalKind, Step};
use tenantry_model::id::{OperationId, SignalId};
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::suspension::{SuspensionMode, Suspensions};
use tenantry_model::text::reason_fault;
use tenantry_model::{Isolation, TenantId, TenantStatus, Timestamp, Write, columns};
use tenantry_provider::{Kind, Provider as _, Rows as _, Sealer as _};
use tenantry_store::{Notification, Rejected, WriteBatch, entity, signal_row};

use super::certificate::{self, PublicKeyView};
use super::{Offboard, clones, plan};
use crate::access::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, FieldError, Result};
use crate::ledger::{Act, OperationInput, OperationKind, StepInput, id_of, resource_id};
use crate::operations::Operation as _;
use crate::operations::archive::{Purpose, archive_id};
use crate::operations::onboard::request::CreateTenant;
use crate::operations::registry::operation_of;
use crate::operations::view::OperationView;
use crate::tenants::suspension::denied;
use tenantry_store::record::{AuditRecord, EventRecord, audit, event};

/// Attempts to plan the operation when the tenant changes at the same time.
pub(super) const TRIES: u32 = 20;
/// Time after which the operation counts as stuck, its hold not counted.
const EXPECTED: Duration = Duration::from_secs(3_600);
/// Longest hold, in days.
const MAX_HOLD_DAYS: u32 = 36_500;
/// Seconds of a day.
const DAY: u64 = 86_400;
/// Hold of a tenant whose plan is not in the catalogue any more, in days.
const DEFAULT_HOLD_DAYS: u32 = 30;
/// Key of the step that mails the administrators.
const NOTICE: &str = "notice";

/// Request to offboard a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OffboardTenant {
    /// Reason. It is kept permanently, so it should not name a person.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
    /// Days for which everything is held before it is deleted; by default `compliance.retention_period` of the tenant's request,
    /// or else that of the plan.
    #[serde(default)]
    #[schemars(range(max = 36_500))]
    pub hold_days: Option<u32>,
}

/// A request that ends a tenant.
pub(crate) struct Demand<'a> {
    /// Erase or offboard.
    pub kind: OperationKind,
    /// Action in the audit trail.
    pub action: &'static str,
    /// Reason.
    pub reason: &'a str,
    /// Days of the hold, if the request says so.
    pub hold_days: Option<u32>,
}

impl Control {
    /// Begins to offboard an active or suspended tenant. Access ends in this transaction, billing after the export. During the
    /// hold, `reconsider` stops the offboarding; after it, everything is deleted.
    pub async fn offboard(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        what: &OffboardTenant,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        if what.hold_days.is_some_and(|days| days > MAX_HOLD_DAYS) {
            let message = format!("must be at most {MAX_HOLD_DAYS} days");
            return Err(Error::invalid(
                ErrorCode::RequestInvalid,
                vec![FieldError::new("hold_days", message)],
            ));
        }
        let (reason, hold_days) = (&what.reason, what.hold_days);
        let demand = Demand { kind: OperationKind::Offboard, action: "tenant.offboard", reason, hold_days };
        self.demand(caller, id_or_slug, &demand, json!(what), key).await
    }

    /// Begins the operation of a demand.
    pub(in crate::operations) async fn demand(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        demand: &Demand<'_>,
        what: Value,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        caller.require(Permission::WriteTenants)?;
        refuse_bad_reason(demand.reason)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let once =
            key.map(|key| Once::new(caller, &key, &format!("{} {}", demand.kind.as_str(), row.id), &what));
        match self.once(once.as_ref(), self.end(caller, row, demand, once.as_ref())).await? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => self.answered_before(&answer).await,
        }
    }

    /// The certificate of a tenant's deletion, as JSON with sorted keys.
    pub async fn certificate(&self, caller: &Caller, id_or_slug: &str) -> Result<Value> {
        caller.require(Permission::ReadTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let found = self.shared.store.certificate_of(&row.id).await.map_err(Error::unavailable)?;
        let found = found.ok_or_else(|| {
            let message = format!(
                "the tenant is {}: its certificate is issued when its deletion is complete",
                row.status
            );
            Error::new(ErrorCode::CertificateNotFound, message)
        })?;
        certificate::document(&found, &self.certificate_key().await?)
    }

    /// The public key of certificates.
    pub async fn certificate_public_key(&self) -> Result<PublicKeyView> {
        Ok(certificate::public_key(&self.certificate_key().await?))
    }

    async fn certificate_key(&self) -> Result<tenantry_store::keyring::SigningKey> {
        self.shared.keyring.signing_key(certificate::KEY).await.map_err(Error::unavailable)
    }

    pub(in crate::operations) async fn end(
        &self,
        caller: &Caller,
        mut row: entity::tenant::Model,
        demand: &Demand<'_>,
        once: Option<&Once>,
    ) -> Result<OperationView> {
        let tenant = id_of(&row)?;
        for _ in 0..TRIES {
            let runs = self.shared.store.runs_of(&row.id).await.map_err(Error::unavailable)?;
            let status: TenantStatus = row.status.parse().map_err(Error::internal)?;
            let erases = demand.kind == OperationKind::Erase;
            let after = match (erases, status) {
                (true, _) if let Some(run) = runs.iter().rev().find(|run| deletes_already(run)) => {
                    self.remember(caller, once, tenant, &run.operation, demand).await?;
                    self.end_keeping(caller, run, demand.reason).await?;
                    return self.operation_view(run).await;
                }
                (true, TenantStatus::Deprovisioning) => status,
                (true, _) | (_, TenantStatus::Active | TenantStatus::Suspended) => {
                    next(status, Event::Deprovision)
                        .map_err(|why| Error::new(ErrorCode::IllegalTransition, why))?
                }
                _ => return Err(cannot_offboard(status)),
            };
            if let Some(half) = runs.iter().find(|run| !erases && replaces_content(run)) {
                let operation = &half.operation;
                let message = format!(
                    "a {} is replacing the tenant's data: offboard the tenant when operation {} has ended",
                    operation.kind, operation.id
                );
                return Err(Error::new(ErrorCode::TenantBusy, message));
            }
            let run = self.run_to_end(caller, &row, &runs, demand).await?;
            let (id, now) = (run.operation.id, run.operation.created_at);
            let others: Vec<OperationId> = unfinished(&runs).collect();
            let mut effects = vec![Write::compare_and_set(
                "tenants",
                columns! { "id": tenant },
                columns! { "status": status, "version": row.version },
                columns! { "status": after, "denied": denied(after, &Suspensions::default()).map(SuspensionMode::as_str) },
            )];
            effects.extend(records(caller, tenant, &run.operation, demand, now));
            effects.extend(others.iter().map(|other| signal_row(*other, &supersede(id, now))));
            effects.extend(self.revoked(tenant).await?);
            effects.extend(once.map(|once| once.guard(&json!({ "operation_id": id }), Some(tenant), now)));
            match self.submit(run, effects).await {
                Ok(run) => {
                    self.wake(&others);
                    self.supersede_late(tenant, id, &others).await?;
                    // Direct database access is fenced; a background task retries fences that were not acknowledged.
                    self.fence_in_time(&row.id).await;
                    return self.operation_view(&run).await;
                }
                // Another commit changed the tenant: plan again.
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
        Err(Error::new(ErrorCode::TenantBusy, "concurrent changes of this tenant; try again"))
    }

    /// The operation, not yet in the ledger.
    async fn run_to_end(
        &self,
        caller: &Caller,
        row: &entity::tenant::Model,
        runs: &[Run],
        demand: &Demand<'_>,
    ) -> Result<Run> {
        let recorded = self.shared.store.resources_of(&row.id).await.map_err(Error::unavailable)?;
        let (id, now) = (OperationId::new(), self.now());
        let generation = 1 + runs.iter().filter(|run| run.operation.parent.is_none()).count() as i64;
        let onboards = |run: &&Run| OperationKind::of(&run.operation) == OperationKind::Onboard;
        let onboarded = runs.iter().rev().find(onboards).filter(|_| demand.kind == OperationKind::Offboard);
        let sealed = onboarded.and_then(|run| run.operation.input.get("sealed"));
        let input = OperationInput {
            plan: row.plan.clone(),
            template: row.template.clone(),
            template_version: u32::try_from(row.template_version).unwrap_or_default(),
            region: row.region.clone(),
            locale: row.locale.clone(),
            generation,
            // Deletion works without it, as the tenant's key may be destroyed.
            sealed: sealed.and_then(Value::as_str).unwrap_or_default().to_owned(),
            begun_by: caller.principal.clone(),
            reason: Some(demand.reason.to_owned()),
        };
        let steps = match demand.kind {
            OperationKind::Erase => plan::erasure(runs, &recorded)?,
            _ => {
                let hold = DAY * u64::from(self.hold_days(row, demand).await?.min(MAX_HOLD_DAYS));
                let keep = Purpose::Backup.kept().as_secs();
                let notice = self.notice(row, id, generation, now + Duration::from_secs(hold)).await?;
                plan::offboarding(runs, &recorded, plan::Hold { notice, hold, keep })?
            }
        };
        let input = serde_json::to_value(input).map_err(Error::internal)?;
        let operation = Row {
            expected_by: Some(now + EXPECTED),
            ..Row::new(id, &row.id, demand.kind.as_str(), input, now)
        };
        Ok(Run { operation, steps })
    }

    /// Days of the hold: by the request, or the contract, or the plan.
    async fn hold_days(&self, row: &entity::tenant::Model, demand: &Demand<'_>) -> Result<u32> {
        if let Some(days) = demand.hold_days {
            return Ok(days);
        }
        let tenant = id_of(row)?;
        self.shared.keyring.load(tenant).await.map_err(Error::unavailable)?;
        let request = row.admin_sealed.as_deref().map(|sealed| self.shared.keyring.open(tenant, sealed));
        let request = request.transpose().map_err(Error::internal)?;
        // The error is dropped: it could quote the request.
        let request: Option<CreateTenant> = request.and_then(|text| serde_json::from_str(&text).ok());
        let contract = request.and_then(|request| request.compliance?.retention_period);
        let plan = || self.shared.catalogue.find(&row.plan).map_or(DEFAULT_HOLD_DAYS, |plan| plan.hold_days);
        Ok(contract.unwrap_or_else(plan))
    }

    /// The step that mails the administrators the end of the hold and the link to the export. The link gives access to all
    /// content, so it is sealed.
    async fn notice(
        &self,
        row: &entity::tenant::Model,
        operation: OperationId,
        generation: i64,
        until: Timestamp,
    ) -> Result<Option<Step>> {
        let Some(mail) = self.shared.resources.serving(Kind::Mail, None, Isolation::Pool) else {
            return Ok(None);
        };
        let tenant = id_of(row)?;
        let resource = resource_id(tenant, generation, NOTICE);
        let until = until.to_string();
        let expires = self.now() + Purpose::Export.kept();
        let link = self.link(tenant, archive_id(operation, plan::EXPORT), expires.seconds());
        let export = json!({
            "export": link.url(self.public_url()), "exported_until": expires.to_string().get(..10),
        });
        self.shared.keyring.load(tenant).await.map_err(Error::unavailable)?;
        let sealed = self.shared.keyring.seal(tenant, &export.to_string()).map_err(Error::unavailable)?;
        let values = json!({ "deleted_on": until.get(..10) });
        let input = StepInput {
            resource: Some(resource),
            generation,
            name: format!("tenant_{}_{NOTICE}_{generation}", tenant.suffix()),
            claim: format!("tenantry:{tenant}:{resource}"),
            settings: json!({ "template": "leaving", "values": values, "sealed": sealed }),
            act: Act::Ensure,
        };
        let policy = Offboard.policy(Policy { mode: Mode::Detached, ..Policy::default() });
        let input = serde_json::to_value(input).map_err(Error::internal)?;
        Ok(Some(Step::new(NOTICE, Kind::Mail.as_str(), mail.name(), policy, input)))
    }

    /// Writes that delete the tenant's one-time codes. Tokens and API keys are rejected for the tenant's status.
    async fn revoked(&self, tenant: TenantId) -> Result<Vec<Write>> {
        let codes = self.shared.store.find("sign_in_codes", &[("tenant_id", json!(tenant))]).await;
        let codes = codes.map_err(Error::unavailable)?;
        Ok(codes.iter().map(|row| Write::delete("sign_in_codes", columns! { "hash": row["hash"] })).collect())
    }

    /// Records a demand for which an operation runs already.
    async fn remember(
        &self,
        caller: &Caller,
        once: Option<&Once>,
        tenant: TenantId,
        operation: &Row,
        demand: &Demand<'_>,
    ) -> Result<()> {
        let now = self.now();
        let [audited, _] = records(caller, tenant, operation, demand, now);
        let guard = once.map(|once| once.guard(&json!({ "operation_id": operation.id }), Some(tenant), now));
        match self.shared.store.commit(WriteBatch::new([audited].into_iter().chain(guard).collect())).await {
            Ok(()) | Err(Rejected::Conflict { .. }) => Ok(()),
            Err(why) => Err(Error::unavailable(why)),
        }
    }

    /// Tenants that keep copies of this tenant's rows after its deletion.
    pub(crate) async fn clones_of(&self, tenant: TenantId) -> Result<Vec<TenantId>> {
        let living = clones::living(&self.shared.store, &*self.shared.keyring, tenant).await;
        Ok(living.map_err(Error::unavailable)?.into_iter().map(|clone| clone.tenant_id).collect())
    }

    /// Supersedes operations that began at the same time as the deletion. From here on none can begin.
    async fn supersede_late(&self, tenant: TenantId, by: OperationId, known: &[OperationId]) -> Result<()> {
        let runs = self.shared.store.runs_of(&tenant.to_string()).await.map_err(Error::unavailable)?;
        for late in unfinished(&runs).filter(|id| *id != by && !known.contains(id)) {
            let signal = supersede(by, self.now());
            self.shared.executor.signal(late, signal, Vec::new()).await.map_err(Error::unavailable)?;
        }
        Ok(())
    }

    /// Skips the step that keeps the archives: an erasure deletes them at once.
    async fn end_keeping(&self, caller: &Caller, run: &Run, reason: &str) -> Result<()> {
        if run.step(plan::KEEP).is_none_or(|step| step.state.is_over()) {
            return Ok(());
        }
        let (id, kind) =
            (SignalId::new(), SignalKind::Skip { step: plan::KEEP.to_owned(), reason: reason.to_owned() });
        let signal = Signal { id, kind, by: caller.principal.clone(), at: self.now() };
        let sent = self.shared.executor.signal(run.operation.id, signal, Vec::new()).await;
        sent.map(drop).map_err(Error::unavailable)
    }

    /// Wakes these operations, for which signals are stored.
    pub(super) fn wake(&self, operations: &[OperationId]) {
        operations.iter().for_each(|id| self.shared.executor.hint(*id));
        self.shared.store.notify(Notification::Operations(operations.to_vec()));
    }
}

/// Audit record and event of the operation's start.
fn records(
    caller: &Caller,
    tenant: TenantId,
    operation: &Row,
    demand: &Demand<'_>,
    now: Timestamp,
) -> [Write; 2] {
    let id = tenant.to_string();
    let audited = AuditRecord {
        actor: &caller.principal,
        action: demand.action,
        target: &id,
        tenant: Some(tenant),
        data: json!({ "operation_id": operation.id, "reason": demand.reason }),
    };
    let event_record = EventRecord {
        kind: "tenant.deprovisioning",
        tenant,
        operation: Some(operation.id),
        data: json!({ "kind": operation.kind }),
        sealed: None,
    };
    [audit(audited, now), event(event_record, now)]
}

fn cannot_offboard(status: TenantStatus) -> Error {
    let allowed = match status {
        TenantStatus::Deprovisioned => "it is deleted",
        TenantStatus::Deprovisioning => {
            "its offboarding has begun; `reconsider` stops it during the hold, `erase` skips the hold"
        }
        _ => "only active and suspended tenants can be; use `erase` for other statuses",
    };
    Error::new(
        ErrorCode::IllegalTransition,
        format!("a tenant that is {status} cannot be offboarded: {allowed}"),
    )
}

/// Whether an operation deletes its tenant, or has deleted it.
pub(in crate::operations) fn deletes_already(run: &Run) -> bool {
    operation_of(&run.operation).deletes_tenant(run)
}

/// Whether the hold of an offboarding is not over yet.
pub(super) fn holds(run: &Run) -> bool {
    run.step(plan::HOLD).is_some_and(|step| !step.state.is_over())
}

/// Whether the operation is replacing the content of the tenant's resources.
fn replaces_content(run: &Run) -> bool {
    !run.operation.state.is_final() && operation_of(&run.operation).replaces_content()
}

/// Ids of the operations that have not ended.
fn unfinished(runs: &[Run]) -> impl Iterator<Item = OperationId> {
    runs.iter().map(|run| &run.operation).filter(|operation| !operation.state.is_final()).map(|o| o.id)
}

fn supersede(by: OperationId, at: Timestamp) -> Signal {
    Signal { id: SignalId::new(), kind: SignalKind::Supersede, by: by.to_string(), at }
}

fn refuse_bad_reason(reason: &str) -> Result<()> {
    match reason_fault(reason) {
        Some(why) => Err(Error::invalid(ErrorCode::RequestInvalid, vec![FieldError::new("reason", why)])),
        None => Ok(()),
    }
}
