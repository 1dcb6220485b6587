//! Repair: what a tenant has is made so again, by `ensure`, from the plan that it was made by (design §1). What comes to
//! its end by itself, such as a certificate, is renewed in the same way before it does.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_engine::{
    CommitError, Mode, OnFailure, Operation, OperationState, Policy, Run, Step, StepState,
};
use tenantry_model::id::OperationId;
use tenantry_model::{Failure, TenantStatus, Timestamp, Write, columns};
use tenantry_provider::{Context, Ensured, Kind, Observed, Provider, Spec};

use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, FieldError, Result};
use crate::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::onboard::id_of;
use crate::record::{Deed, audit};
use crate::steps::{ONBOARD, OperationInput, REPAIR};
use crate::view::OperationView;
use tenantry_store::entity;

/// What is repaired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RepairTenant {
    /// Keys of the steps whose resources are made so again, with those that they need; without it, all.
    #[schemars(extend("maxItems" = 256))]
    pub steps: BTreeSet<String>,
}

impl Control {
    /// Begins to make an active tenant's resources as they should be. What is as it should be stays as it is.
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

    /// Begins a repair wherever something is to be renewed by now. Answers how many; a tenant that another operation
    /// changes has its turn later.
    pub async fn renew_due(&self) -> Result<usize> {
        let now = self.now();
        let due = self.shared.store.resources_due(now).await.map_err(Error::unavailable)?;
        let mut begun = 0;
        for (tenant, step) in due {
            let what = RepairTenant { steps: BTreeSet::from([step]) };
            match self.repair(&Caller::system(), &tenant, &what, None).await {
                Ok(_) => begun += 1,
                Err(why) => tracing::warn!(tenant, %why, "what is due for a renewal has to wait"),
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
        let deed = Deed {
            actor: &caller.principal,
            action: "tenant.repair",
            target: &row.id,
            tenant: Some(id_of(row)?),
            data: json!({ "operation_id": run.operation.id, "steps": what.steps }),
        };
        let begun = self.begin(row, run, vec![audit(deed, now)], once).await?;
        // A fence that somebody else has changed is none that did not answer: the sweep would not tell it again.
        self.fence_in_time(&row.id).await;
        Ok(begun)
    }

    /// How the tenant was made, if it is active or suspended: then there is something that can be worked on.
    pub(crate) async fn made(&self, row: &entity::tenant::Model) -> Result<Run> {
        // One that is suspended keeps its infrastructure (S1.29).
        let status: TenantStatus = row.status.parse().map_err(Error::internal)?;
        if !matches!(status, TenantStatus::Active | TenantStatus::Suspended) {
            let message = format!("the tenant is {status}; this takes one that is active or suspended");
            return Err(Error::conflict("illegal_transition", message));
        }
        let made = self.shared.store.latest_run(&row.id, ONBOARD, OperationState::Succeeded).await;
        made.map_err(Error::unavailable)?
            .ok_or_else(|| Error::internal("an active tenant without its onboarding"))
    }

    /// Begins an operation on a tenant that is still as it was read.
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
            Err(CommitError::Conflict { .. } | CommitError::Stale) => Err(Error::conflict(
                "tenant_busy",
                "another operation changes this tenant; wait until it has ended",
            )),
            Err(why) => Err(Error::unavailable(why)),
        }
    }
}

/// Makes it so again, and says plainly what that cannot bring back.
pub(crate) async fn repaired(
    provider: &dyn Provider,
    context: &Context,
    spec: &Spec,
) -> std::result::Result<Ensured, Failure> {
    const LOST: &str = "content_lost";
    let is_empty = match provider.observe(context, spec).await? {
        Observed::Absent => true,
        Observed::Present { version, .. } => provider.kind() == Kind::Database && version.is_none(),
        Observed::Foreign => false,
    };
    let told = spec.note.as_ref().is_some_and(|note| note.get(LOST).is_some());
    let lost = told || is_empty && provider.portable().is_some();
    if lost {
        // Whoever goes on after a crash finds it there, as good as new.
        context.notes.note(json!({ LOST: true })).await?;
    }
    let ensured = provider.ensure(context, spec).await?;
    match provider.observe(context, spec).await? {
        Observed::Present { differs, .. } if differs.is_empty() => {}
        Observed::Present { differs, .. } => {
            let message = format!(
                "a repair cannot put this right: {}; do so by hand and retry the step, or, where all of it is the tenant's own, \
                 drop it, retry, and restore a backup",
                differs.join("; ")
            );
            return Err(Failure::fatal("cannot_repair", message));
        }
        Observed::Absent | Observed::Foreign => {
            return Err(Failure::retryable("just_gone", "it was taken away as soon as it was there"));
        }
    }
    if lost {
        return Err(Failure::fatal(
            LOST,
            "it was gone, and stands again without what the tenant had in it: retry the step, which changes no more, and restore a backup",
        ));
    }
    Ok(ensured)
}

/// The repair of what an onboarding made: these steps with what they need, or all.
fn repair_of(made: &Run, wanted: &BTreeSet<String>, by: &str, now: Timestamp) -> Result<Run> {
    let can_be: BTreeSet<&str> =
        made.steps.iter().filter(|step| is_repairable(step)).map(|s| s.key.as_str()).collect();
    if let Some(unknown) = wanted.iter().find(|key| !can_be.contains(key.as_str())) {
        let known = Vec::from_iter(can_be).join(", ");
        let message =
            format!("`{unknown}` is no step that makes something of this tenant's; there are {known}");
        return Err(Error::invalid("request_invalid", vec![FieldError::new("steps", message)]));
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
            // It may not undo what works: it asks for a person.
            Policy { on_failure: OnFailure::Park, ..step.policy.clone() },
            step.input.clone(),
        )
    });
    let operation = after(&made.operation, REPAIR, by, now)?;
    Ok(Run { operation, steps: steps.collect() })
}

/// An operation of this kind on the tenant that an onboarding made: as that one knew it, and expected to take as long.
pub(crate) fn after(made: &Operation, kind: &str, by: &str, now: Timestamp) -> Result<Operation> {
    let mut input: OperationInput = serde_json::from_value(made.input.clone()).map_err(Error::internal)?;
    by.clone_into(&mut input.begun_by);
    let input = serde_json::to_value(input).map_err(Error::internal)?;
    Ok(Operation {
        expected_by: made.expected_by.map(|by| now + by.since(made.created_at)),
        ..Operation::new(OperationId::new(), &made.subject, kind, input, now)
    })
}

/// A step that made a resource which is still the tenant's. What is detached has a life of its own.
pub(crate) fn is_repairable(step: &Step) -> bool {
    step.policy.mode == Mode::Inline && step.state == StepState::Done && step.input.get("resource").is_some()
}

/// A step and all that it needs, directly or not.
fn with_needs<'a>(made: &'a Run, key: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::from([key]);
    let mut open = vec![key];
    while let Some(step) = open.pop().and_then(|key| made.step(key)) {
        open.extend(step.needs.iter().map(String::as_str).filter(|need| found.insert(need)));
    }
    found
}

/// What a step needs among the chosen ones: where it needs another one, what that one needs.
pub(crate) fn nearest(made: &Run, step: &Step, chosen: &BTreeSet<&str>) -> Vec<String> {
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
