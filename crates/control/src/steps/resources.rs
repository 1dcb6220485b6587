//! Steps that a provider does: its verbs, with all that they may know, and the resource's row.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tenantry_engine::{Attempt, Done, Operation, Step};
use tenantry_model::{Columns, Failure, Timestamp, Write, columns};
use tenantry_provider::{Context, Observed, Provider, Removed, Rows, Sealer as _, Spec, Tenant};

use super::ProviderSteps;
use super::input::{ONBOARD, OperationInput, Personal, REPAIR, read, read_text, tenant_id};
use crate::planner::StepInput;
use crate::repair::repaired;

impl ProviderSteps {
    pub(crate) async fn spec(
        &self,
        attempt: &Attempt,
        input: &StepInput,
    ) -> Result<(Context, Spec), Failure> {
        let operation = &attempt.operation;
        let start: OperationInput = read(&operation.input)?;
        let tenant = tenant_id(operation)?;
        self.keyring.load(tenant).await?;
        let personal: Personal = read_text(&self.keyring.open(tenant, &start.sealed)?)?;
        let resource =
            input.resource.ok_or_else(|| Failure::fatal("bad_plan", "the step names no resource"))?;
        let spec = Spec {
            resource,
            operation: operation.parent.unwrap_or(operation.id),
            generation: input.generation,
            tenant: Tenant {
                id: tenant,
                slug: personal.slug,
                name: personal.name,
                plan: start.plan,
                region: start.region,
                locale: start.locale,
                admin: personal.admin,
            },
            name: input.name.clone(),
            claim: input.claim.clone(),
            settings: input.settings.clone(),
            inputs: attempt
                .step
                .needs
                .iter()
                .filter_map(|need| Some((need.clone(), attempt.outputs.get(need)?.clone())))
                .collect::<BTreeMap<_, _>>(),
            note: attempt.step.note.clone(),
        };
        Ok((self.context(attempt), spec))
    }

    pub(crate) fn context(&self, attempt: &Attempt) -> Context {
        let operation = &attempt.operation;
        Context {
            now: attempt.now,
            sealer: self.keyring.clone(),
            // An onboarding that is not yet in the ledger is for a tenant that is new: there is nothing to read.
            rows: if operation.version == 0 && operation.kind == ONBOARD {
                Arc::new(NoRows)
            } else {
                self.rows.clone()
            },
            notes: Arc::new(ProviderNotes(attempt.notes.clone())),
        }
    }

    pub(super) async fn ensure(
        &self,
        attempt: &Attempt,
        provider: &dyn Provider,
    ) -> Result<Done<Write>, Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let (context, spec) = self.spec(attempt, &input).await?;
        self.serving.check(provider.name(), &spec.tenant.region)?;
        let place = self.serving.place(provider).await;
        let ensured = match attempt.operation.kind == REPAIR && !provider.transactional() {
            true => repaired(provider, &context, &spec).await?,
            false => provider.ensure(&context, &spec).await?,
        };
        drop(place);
        let mut effects = ensured.writes;
        if attempt.operation.kind == REPAIR {
            let now = columns! { "outputs": ensured.outputs, "updated_at": attempt.now };
            effects.push(Write::update("resources", columns! { "id": spec.resource }, now));
        } else {
            let row = resource_row(
                &attempt.operation,
                &attempt.step,
                &input,
                "present",
                &ensured.outputs,
                attempt.now,
            );
            effects.extend(row.map(|row| Write::upsert("resources", row)));
        }
        Ok(Done { output: ensured.outputs, effects })
    }

    pub(super) async fn remove(
        &self,
        attempt: &Attempt,
        provider: &dyn Provider,
    ) -> Result<Done<Write>, Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let (context, spec) = self.spec(attempt, &input).await?;
        let removed = self.removed(provider, &context, &spec).await?;
        let mut effects = removed.writes;
        let row =
            resource_row(&attempt.operation, &attempt.step, &input, "absent", &removed.receipt, attempt.now);
        effects.extend(row.map(|row| Write::upsert("resources", row)));
        // The forward output stays: it tells what was made; the receipt stands with the resource.
        Ok(Done { output: attempt.step.output.clone(), effects })
    }

    /// Removes a resource and looks whether it is gone. What a provider keeps in the registry goes with the step's end.
    pub(crate) async fn removed(
        &self,
        provider: &dyn Provider,
        context: &Context,
        spec: &Spec,
    ) -> Result<Removed, Failure> {
        let place = self.serving.place(provider).await;
        let removed = provider.remove(context, spec).await?;
        drop(place);
        if !provider.transactional()
            && matches!(provider.observe(context, spec).await?, Observed::Present { .. })
        {
            return Err(Failure::retryable("still_there", "the resource is still there after its removal"));
        }
        Ok(removed)
    }
}

/// The row that says how a step's resource stands; none if it has none.
pub(super) fn resource_row(
    operation: &Operation,
    step: &Step,
    input: &StepInput,
    state: &str,
    outputs: &Value,
    now: Timestamp,
) -> Option<Columns> {
    let created_at = step.started_at.unwrap_or(now);
    let id = input.resource?;
    Some(columns! {
        "id": id, "tenant_id": operation.subject, "kind": step.kind, "provider": step.provider,
        "step_key": step.key, "name": input.name, "claim": input.claim, "generation": input.generation,
        "state": state, "outputs": outputs, "operation_id": operation.id, "created_at": created_at, "updated_at": now,
    })
}

/// The rows of a tenant that is not yet written.
struct NoRows;

#[async_trait]
impl Rows for NoRows {
    async fn find(&self, _: &'static str, _: &[(&'static str, Value)]) -> Result<Vec<Value>, Failure> {
        Ok(Vec::new())
    }
}

/// Passes a provider's note on to the ledger.
pub(crate) struct ProviderNotes(pub(crate) Arc<dyn tenantry_engine::run::Notes>);

#[async_trait]
impl tenantry_provider::Notes for ProviderNotes {
    async fn note(&self, note: Value) -> Result<(), Failure> {
        self.0.note(note).await
    }
}
