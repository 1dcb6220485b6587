//! Repair: reconciles a tenant's resources with the plan by which they were created. A resource that expires, such as a
//! certificate, is renewed in the same way before it does.

mod reconcile;

use std::collections::BTreeSet;
use tenantry_model::ErrorCode;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_engine::{CommitError, Mode, OnFailure, Operation as Row, OperationState, Run, Step, StepState};
use tenantry_model::id::OperationId;
use tenantry_model::{TenantStatus, Timestamp, Write, columns};
use tenantry_store::entity;

use super::{Operation, Transition};
use crate::access::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, FieldError, Result};
use crate::ledger::{OperationInput, OperationKind, id_of, set_generation};
use crate::operations::view::OperationView;
use tenantry_store::record::{AuditRecord, audit};

pub(super) use reconcile::reconcile;

/// The operation that repairs a tenant.
pub(super) struct Repair;

impl Operation for Repair {
    fn kind(&self) -> OperationKind {
        OperationKind::Repair
    }

    /// It must not undo what works.
    fn on_failure(&self) -> OnFailure {
        OnFailure::Park
    }

    fn creates_resources(&self) -> bool {
        false
    }

    fn on_transition(&self, change: &Transition<'_>) -> Vec<Write> {
        succeeded_event(change, "tenant.repaired")
    }
}

/// The event of an operation on existing resources, once it has succeeded.
pub(super) fn succeeded_event(change: &Transition<'_>, kind: &'static str) -> Vec<Write> {
    if !change.enters(OperationState::Succeeded) {
        return Vec::new();
    }
    let steps: Vec<&str> = change.after.steps.iter().map(|step| step.key.as_str()).collect();
    vec![change.event(kind, json!({ "steps": steps }))]
}

/// Request for a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RepairTenant {
    /// Keys of the steps whose resources are reconciled, together with the steps that they need; all by default.
    #[schemars(extend("maxItems" = 256))]
    pub steps: BTreeSet<String>,
}

impl Control {
    /// Begins a repair of an active or suspended tenant. Resources that match their plan do not change.
    pub async fn repair(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        what: &RepairTenant,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        caller.require(Permission::WriteTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let once = key.map(|key| Once::new(caller, &key, &format!("repair {}", row.id), &json!(what)));
        match self.once(once.as_ref(), self.try_repair(caller, &row, what, once.as_ref())).await? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => self.answered_before(&answer).await,
        }
    }

    /// Begins a repair for each resource that is due for renewal. Returns the number of repairs; a tenant that another
    /// operation changes is left for the next call.
    pub async fn renew_due(&self) -> Result<usize> {
        let now = self.now();
        let due = self.shared.store.resources_due(now).await.map_err(Error::unavailable)?;
        let mut begun = 0;
        for (tenant, step) in due {
            let what = RepairTenant { steps: BTreeSet::from([step]) };
            match self.repair(&Caller::system(), &tenant, &what, None).await {
                Ok(_) => begun += 1,
                Err(why) => tracing::warn!(tenant, %why, "renewal postponed"),
            }
        }
        Ok(begun)
    }

    async fn try_repair(
        &self,
        caller: &Caller,
        row: &entity::tenant::Model,
        what: &RepairTenant,
        once: Option<&Once>,
    ) -> Result<OperationView> {
        let (made, now) = (self.made(row).await?, self.now());
        let run = repair_of(&made, &what.steps, &caller.principal, now)?;
        let audited = AuditRecord {
            actor: &caller.principal,
            action: "tenant.repair",
            target: &row.id,
            tenant: Some(id_of(row)?),
            data: json!({ "operation_id": run.operation.id, "steps": what.steps }),
        };
        let begun = self.begin(row, run, vec![audit(audited, now)], once).await?;
        // The background task only retries fences whose provider did not answer; one that was changed from outside is
        // reconciled here.
        self.fence_in_time(&row.id).await;
        Ok(begun)
    }

    /// The onboarding of an active or suspended tenant. Its steps have the present generation of their resources, which may
    /// have been created anew since. Fails for a tenant in any other status.
    pub(crate) async fn made(&self, row: &entity::tenant::Model) -> Result<Run> {
        let status: TenantStatus = row.status.parse().map_err(Error::internal)?;
        if !matches!(status, TenantStatus::Active | TenantStatus::Suspended) {
            let message = format!("the tenant is {status}; only active and suspended tenants allow this");
            return Err(Error::new(ErrorCode::IllegalTransition, message));
        }
        let made = self
            .shared
            .store
            .latest_run(&row.id, OperationKind::Onboard.as_str(), OperationState::Succeeded)
            .await;
        let made = made.map_err(Error::unavailable)?;
        let mut made = made.ok_or_else(|| Error::internal("an active tenant without its onboarding"))?;
        let resources = self.shared.store.resources_of(&row.id).await.map_err(Error::unavailable)?;
        for step in &mut made.steps {
            let own =
                |resource: &&entity::resource::Model| step.input.get("resource") == Some(&json!(resource.id));
            if let Some(resource) = resources.iter().find(own) {
                set_generation(&mut step.input, resource.generation);
            }
        }
        Ok(made)
    }

    /// Begins an operation on a tenant, unless the tenant's status has changed since it was read.
    pub(crate) async fn begin(
        &self,
        row: &entity::tenant::Model,
        run: Run,
        mut effects: Vec<Write>,
        once: Option<&Once>,
    ) -> Result<OperationView> {
        let tenant = id_of(row)?;
        let as_read = || columns! { "status": row.status };
        effects.push(Write::update_if("tenants", columns! { "id": tenant }, as_read(), as_read()));
        let (answer, now) = (json!({ "operation_id": run.operation.id }), run.operation.created_at);
        effects.extend(once.map(|once| once.guard(&answer, Some(tenant), now)));
        match self.submit(run, effects).await {
            Ok(run) => self.operation_view(&run).await,
            Err(CommitError::Conflict { .. } | CommitError::Stale) => Err(Error::new(
                ErrorCode::TenantBusy,
                "another operation is changing this tenant; try again when it has ended",
            )),
            Err(why) => Err(Error::unavailable(why)),
        }
    }
}

/// The plan of a repair: these steps of the onboarding with the steps that they need, or all.
fn repair_of(made: &Run, wanted: &BTreeSet<String>, by: &str, now: Timestamp) -> Result<Run> {
    let can_be: BTreeSet<&str> =
        made.steps.iter().filter(|step| is_repairable(step)).map(|s| s.key.as_str()).collect();
    if let Some(unknown) = wanted.iter().find(|key| !can_be.contains(key.as_str())) {
        let known = Vec::from_iter(can_be).join(", ");
        let message = format!(
            "`{unknown}` is not a step that created a resource of this tenant; the steps are {known}"
        );
        return Err(Error::invalid(ErrorCode::RequestInvalid, vec![FieldError::new("steps", message)]));
    }
    let chosen: BTreeSet<&str> = match wanted.is_empty() {
        true => can_be,
        false => {
            wanted.iter().flat_map(|key| with_needs(made, key)).filter(|key| can_be.contains(key)).collect()
        }
    };
    let steps = made.steps.iter().filter(|step| chosen.contains(step.key.as_str()));
    let steps = steps.map(|step| Step {
        needs: nearest(made, step, &chosen),
        position: step.position,
        ..Step::new(
            &step.key,
            &step.kind,
            &step.provider,
            Repair.policy(step.policy.clone()),
            step.input.clone(),
        )
    });
    let operation = after(&made.operation, &Repair.kind(), by, now)?;
    Ok(Run { operation, steps: steps.collect() })
}

/// A new operation on the tenant of an onboarding, with the same input and the same expected duration.
pub(super) fn after(made: &Row, kind: &OperationKind, by: &str, now: Timestamp) -> Result<Row> {
    let mut input: OperationInput = serde_json::from_value(made.input.clone()).map_err(Error::internal)?;
    by.clone_into(&mut input.begun_by);
    let input = serde_json::to_value(input).map_err(Error::internal)?;
    Ok(Row {
        expected_by: made.expected_by.map(|by| now + by.since(made.created_at)),
        ..Row::new(OperationId::new(), &made.subject, kind.as_str(), input, now)
    })
}

/// Whether a step created a resource that a repair can reconcile. Resources of detached steps belong to their own operations.
pub(super) fn is_repairable(step: &Step) -> bool {
    step.policy.mode == Mode::Inline && step.state == StepState::Done && step.input.get("resource").is_some()
}

/// A step and all steps that it needs, directly or not.
fn with_needs<'a>(made: &'a Run, key: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::from([key]);
    let mut open = vec![key];
    while let Some(step) = open.pop().and_then(|key| made.step(key)) {
        open.extend(step.needs.iter().map(String::as_str).filter(|need| found.insert(need)));
    }
    found
}

/// The needs of a step among the chosen steps. A need that is not chosen is replaced by its own needs.
pub(super) fn nearest(made: &Run, step: &Step, chosen: &BTreeSet<&str>) -> Vec<String> {
    let mut needs = BTreeSet::new();
    let mut open: Vec<&str> = step.needs.iter().map(String::as_str).collect();
    while let Some(key) = open.pop() {
        if chosen.contains(key) {
            needs.insert(key.to_owned());
        } else {
            open.extend(made.step(key).into_iter().flat_map(|step| &step.needs).map(String::as_str));
        }
    }
    needs.into_iter().collect()
}
