//! Leaving: a tenant is deleted for good, and that is proven (GDPR Art. 17). It loses access in the transaction that
//! begins it; whatever operation runs is taken over, with what it has made so far; nothing is ever undone.

pub mod certificate;
pub(crate) mod clones;
pub(crate) mod plan;
mod reconsider;
mod steps;
mod wipe;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_engine::{
    CommitError, Mode, OnFailure, Operation, OperationState, Policy, Run, Signal, SignalKind, Step,
};
use tenantry_model::id::{OperationId, SignalId};
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::suspension::{Grade, Suspensions};
use tenantry_model::{Isolation, TenantId, TenantStatus, Timestamp, Write, columns};
use tenantry_provider::{Kind, Rows as _, Sealer as _};

use crate::access::{Caller, Permission};
use crate::archive::{Purpose, archive_id};
use crate::control::Control;
use crate::error::{Error, ErrorKind, FieldError, Result};
use crate::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::onboard::id_of;
use crate::planner::{Act, StepInput, resource_id};
use crate::record::{Deed, Fact, audit, event};
use crate::request::CreateTenant;
use crate::steps::{ONBOARD, OperationInput};
use crate::suspension::denied;
use crate::view::OperationView;
use certificate::PublicKeyView;
use tenantry_store::{News, Rejected, Unit, entity, signal_row};

/// The kind of an operation that deletes a tenant at once.
pub const ERASE: &str = "erase";
/// The kind of an operation that holds everything for a while, and then deletes it.
pub const OFFBOARD: &str = "offboard";

/// How often an end is planned again because something of the tenant changed meanwhile.
const TRIES: u32 = 20;
/// How long an end may take before it counts as stuck, its hold not counted.
const EXPECTED: Duration = Duration::from_secs(3_600);
/// Longest reason.
const MAX_REASON: usize = 500;
/// Longest hold: a hundred years.
const MAX_HOLD_DAYS: u32 = 36_500;
const DAY: u64 = 86_400;
/// Of a tenant whose plan is not sold any more.
const DEFAULT_HOLD_DAYS: u32 = 30;
/// The step that tells the administrators.
const NOTICE: &str = "notice";

/// A demand for deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseTenant {
    /// Why. It is kept for ever, so it should name nobody.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
}

/// A termination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OffboardTenant {
    /// Why. It is kept for ever, so it should name nobody.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
    /// How many days everything is held before it is deleted; without it, what the contract says (`compliance.retention_period`
    /// of the sign-up), or else the plan.
    #[serde(default)]
    #[schemars(range(max = 36_500))]
    pub hold_days: Option<u32>,
}

/// What is asked for.
struct Demand<'a> {
    kind: &'static str,
    /// The word in the audit trail.
    action: &'static str,
    reason: &'a str,
    hold_days: Option<u32>,
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
        let demand = Demand { kind: ERASE, action: "tenant.erase", reason: &what.reason, hold_days: None };
        self.demand(caller, id_or_slug, &demand, json!(what), key).await
    }

    /// Begins to end an active or suspended tenant: access ends at once, billing too; everything is held for a while, in
    /// which the customer can think better of it, and then deleted.
    pub async fn offboard(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        what: &OffboardTenant,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        if what.hold_days.is_some_and(|days| days > MAX_HOLD_DAYS) {
            let message = format!("must be at most {MAX_HOLD_DAYS} days");
            return Err(Error::invalid("request_invalid", vec![FieldError::new("hold_days", message)]));
        }
        let (reason, hold_days) = (&what.reason, what.hold_days);
        let demand = Demand { kind: OFFBOARD, action: "tenant.offboard", reason, hold_days };
        self.demand(caller, id_or_slug, &demand, json!(what), key).await
    }

    async fn demand(
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
        let once = key.map(|key| Once::new(caller, &key, &format!("{} {}", demand.kind, row.id), &what));
        match self.once(once.as_ref(), self.end(caller, row, demand, once.as_ref())).await? {
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
                let runs = self.shared.store.runs_of(&erasure.tenant.to_string()).await;
                if runs.map_err(Error::unavailable)?.iter().any(deletes_already) {
                    // It goes on by itself.
                    continue;
                }
                let demand =
                    Demand { kind: ERASE, action: "tenant.erase", reason: &erasure.reason, hold_days: None };
                let row = self.tenant_row(&caller, &erasure.tenant.to_string()).await?;
                let begun = self.end(&caller, row, &demand, None).await?;
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

    async fn certificate_key(&self) -> Result<tenantry_store::keyring::SigningKey> {
        self.shared.keyring.signing_key(certificate::KEY).await.map_err(Error::unavailable)
    }

    async fn end(
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
            let after = match (demand.kind, status) {
                (ERASE, _) if let Some(run) = runs.iter().rev().find(|run| deletes_already(run)) => {
                    self.remember(caller, once, tenant, &run.operation, demand).await?;
                    self.end_keeping(caller, run, demand.reason).await?;
                    return self.operation_view(run).await;
                }
                (ERASE, TenantStatus::Deprovisioning) => status,
                (ERASE, _) | (_, TenantStatus::Active | TenantStatus::Suspended) => {
                    next(status, Event::Deprovision)
                        .map_err(|why| Error::conflict("illegal_transition", why))?
                }
                _ => return Err(cannot_offboard(status)),
            };
            if let Some(half) = runs.iter().find(|run| demand.kind == OFFBOARD && puts_back(run)) {
                let operation = &half.operation;
                let message = format!(
                    "the tenant's rows are half of a {}: offboard it when operation {} has ended",
                    operation.kind, operation.id
                );
                return Err(Error::conflict("tenant_busy", message));
            }
            let run = self.run_to_end(caller, &row, &runs, demand).await?;
            let (id, now) = (run.operation.id, run.operation.created_at);
            let others: Vec<OperationId> = unfinished(&runs).collect();
            let mut effects = vec![Write::compare_and_set(
                "tenants",
                columns! { "id": tenant },
                columns! { "status": status, "version": row.version },
                columns! { "status": after, "denied": denied(after, &Suspensions::default()).map(Grade::as_str) },
            )];
            effects.extend(records(caller, tenant, &run.operation, demand, now));
            effects.extend(others.iter().map(|other| signal_row(*other, &supersede(id, now))));
            effects.extend(self.revoked(tenant).await?);
            effects.extend(once.map(|once| once.guard(&json!({ "operation_id": id }), Some(tenant), now)));
            match self.submit(run, effects).await {
                Ok(run) => {
                    self.wake(&others);
                    self.supersede_late(tenant, id, &others).await?;
                    // What clients have past Tenantry follows; what does not answer is told again.
                    self.fence_in_time(&row.id).await;
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
        let onboarded = runs.iter().rev().find(|run| run.operation.kind == ONBOARD);
        let sealed =
            onboarded.filter(|_| demand.kind == OFFBOARD).and_then(|run| run.operation.input.get("sealed"));
        let input = OperationInput {
            plan: row.plan.clone(),
            template: row.template.clone(),
            template_version: u32::try_from(row.template_version).unwrap_or_default(),
            region: row.region.clone(),
            locale: row.locale.clone(),
            generation,
            // Deleting works without it, as it must when the tenant's key is gone.
            sealed: sealed.and_then(Value::as_str).unwrap_or_default().to_owned(),
            begun_by: caller.principal.clone(),
            reason: Some(demand.reason.to_owned()),
        };
        let steps = match demand.kind {
            ERASE => plan::erasure(runs, &recorded)?,
            _ => {
                let hold = DAY * u64::from(self.hold_days(row, demand).await?.min(MAX_HOLD_DAYS));
                let keep = Purpose::Backup.kept().as_secs();
                let notice = self.notice(row, id, generation, now + Duration::from_secs(hold)).await?;
                plan::offboarding(runs, &recorded, plan::Farewell { notice, hold, keep })?
            }
        };
        let input = serde_json::to_value(input).map_err(Error::internal)?;
        let operation = Operation {
            expected_by: Some(now + EXPECTED),
            ..Operation::new(id, &row.id, demand.kind, input, now)
        };
        Ok(Run { operation, steps })
    }

    /// What the request says, or the contract, or the plan.
    async fn hold_days(&self, row: &entity::tenant::Model, demand: &Demand<'_>) -> Result<u32> {
        if let Some(days) = demand.hold_days {
            return Ok(days);
        }
        let tenant = id_of(row)?;
        self.shared.keyring.load(tenant).await.map_err(Error::unavailable)?;
        let request = row.admin_sealed.as_deref().map(|sealed| self.shared.keyring.open(tenant, sealed));
        let request = request.transpose().map_err(Error::internal)?;
        // Its error could quote the request.
        let request: Option<CreateTenant> = request.and_then(|text| serde_json::from_str(&text).ok());
        let contract = request.and_then(|request| request.compliance?.retention_period);
        let plan = || self.shared.catalogue.find(&row.plan).map_or(DEFAULT_HOLD_DAYS, |plan| plan.hold_days);
        Ok(contract.unwrap_or_else(plan))
    }

    /// The step that tells the administrators until when everything is held, and where the operation's export is. Whoever
    /// knows that address has everything, so it is sealed.
    async fn notice(
        &self,
        row: &entity::tenant::Model,
        operation: OperationId,
        generation: i64,
        until: Timestamp,
    ) -> Result<Option<Step>> {
        let Some(mail) = self.shared.providers.default_for(Kind::Mail, Isolation::Pool) else {
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
        let policy = Policy { mode: Mode::Detached, on_failure: OnFailure::Park, ..Policy::default() };
        let input = serde_json::to_value(input).map_err(Error::internal)?;
        Ok(Some(Step::new(NOTICE, Kind::Mail.as_str(), mail.name(), policy, input)))
    }

    /// The tenant's people come in no more with what they were given. Its tokens and API keys are refused for its status.
    async fn revoked(&self, tenant: TenantId) -> Result<Vec<Write>> {
        let codes = self.shared.store.find("sign_in_codes", &[("tenant_id", json!(tenant))]).await;
        let codes = codes.map_err(Error::unavailable)?;
        Ok(codes.iter().map(|row| Write::delete("sign_in_codes", columns! { "hash": row["hash"] })).collect())
    }

    /// Remembers who asked for what is under way already, and the answer.
    async fn remember(
        &self,
        caller: &Caller,
        once: Option<&Once>,
        tenant: TenantId,
        operation: &Operation,
        demand: &Demand<'_>,
    ) -> Result<()> {
        let now = self.now();
        let [deed, _] = records(caller, tenant, operation, demand, now);
        let guard = once.map(|once| once.guard(&json!({ "operation_id": operation.id }), Some(tenant), now));
        match self.shared.store.commit(Unit::new([deed].into_iter().chain(guard).collect())).await {
            Ok(()) | Err(Rejected::Conflict { .. }) => Ok(()),
            Err(why) => Err(Error::unavailable(why)),
        }
    }

    /// Tenants that keep copies of this one's rows when it is gone.
    pub(crate) async fn clones_of(&self, tenant: TenantId) -> Result<Vec<TenantId>> {
        let living = clones::living(&self.shared.store, &*self.shared.keyring, tenant).await;
        Ok(living.map_err(Error::unavailable)?.into_iter().map(|clone| clone.tenant_id).collect())
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

    /// Whoever asks for erasure does not wait for the end of archives.
    async fn end_keeping(&self, caller: &Caller, run: &Run, reason: &str) -> Result<()> {
        if run.step(plan::KEEP).is_none_or(|step| step.state.is_over()) {
            return Ok(());
        }
        let (id, kind) =
            (SignalId::new(), SignalKind::Skip { step: plan::KEEP.to_owned(), reason: reason.to_owned() });
        let signal = Signal { id, kind, by: caller.principal.clone(), at: self.now() };
        let told = self.shared.executor.signal(run.operation.id, signal, Vec::new()).await;
        told.map(drop).map_err(Error::unavailable)
    }

    /// Signals were left for these operations.
    fn wake(&self, operations: &[OperationId]) {
        operations.iter().for_each(|id| self.shared.executor.hint(*id));
        self.shared.store.tell(News::Operations(operations.to_vec()));
    }
}

/// The audit record and the event of the beginning.
fn records(
    caller: &Caller,
    tenant: TenantId,
    operation: &Operation,
    demand: &Demand<'_>,
    now: Timestamp,
) -> [Write; 2] {
    let id = tenant.to_string();
    let deed = Deed {
        actor: &caller.principal,
        action: demand.action,
        target: &id,
        tenant: Some(tenant),
        data: json!({ "operation_id": operation.id, "reason": demand.reason }),
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

fn cannot_offboard(status: TenantStatus) -> Error {
    let allowed = match status {
        TenantStatus::Deprovisioned => "it is gone",
        TenantStatus::Deprovisioning => {
            "it is leaving already; `reconsider` brings it back, `erase` skips the hold"
        }
        _ => "only one that is active or suspended can; `erase` ends one in any state",
    };
    Error::conflict(
        "illegal_transition",
        format!("a tenant that is {status} cannot be offboarded: {allowed}"),
    )
}

/// Whether an operation deletes its tenant, or has: another one would only start over.
fn deletes_already(run: &Run) -> bool {
    let operation = &run.operation;
    let ended = operation.state.is_final() && operation.state != OperationState::Succeeded;
    let deletes = match operation.kind.as_str() {
        ERASE => true,
        // Before there is a backup, nothing is deleted, and without one nothing ever will be.
        OFFBOARD => run.step(plan::BACKUP).is_none_or(|step| step.state.is_over()),
        _ => false,
    };
    operation.parent.is_none() && deletes && !ended
}

/// Whether its hold is not over yet.
fn holds(run: &Run) -> bool {
    run.step(plan::HOLD).is_some_and(|step| !step.state.is_over())
}

/// Whether it is putting an archive's content in the place of what the tenant has.
fn puts_back(run: &Run) -> bool {
    let operation = &run.operation;
    !operation.state.is_final() && ["restore", "import"].contains(&operation.kind.as_str())
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
