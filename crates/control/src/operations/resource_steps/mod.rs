//! Steps that act on one resource through its provider: ensure and remove, and what they have in common.

mod ensure;
mod remove;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tenantry_engine::{Attempt, Operation, Step};
use tenantry_model::{Columns, Failure, Timestamp, columns};
use tenantry_provider::{Context, Observed, Provider, Removed, Rows, Sealer as _, Spec, Tenant};

use super::ProviderSteps;
use crate::ledger::{OperationInput, OperationKind, Personal, StepInput, read, read_sealed, tenant_id};

pub(super) use ensure::Ensure;
pub(super) use remove::Remove;

impl ProviderSteps {
    /// What the provider of a step is told, with the tenant's personal data.
    pub(crate) async fn spec(
        &self,
        attempt: &Attempt,
        input: &StepInput,
    ) -> Result<(Context, Spec), Failure> {
        let operation = &attempt.operation;
        let start: OperationInput = read(&operation.input)?;
        let tenant = tenant_id(operation)?;
        self.keyring.load(tenant).await?;
        let personal: Personal = read_sealed(&self.keyring.open(tenant, &start.sealed)?)?;
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

    /// What a provider may use during an attempt.
    pub(crate) fn context(&self, attempt: &Attempt) -> Context {
        let operation = &attempt.operation;
        // The tenant of an onboarding that is not in the ledger yet has no rows.
        let is_new = operation.version == 0 && OperationKind::of(operation) == OperationKind::Onboard;
        Context {
            now: attempt.now,
            sealer: self.keyring.clone(),
            rows: if is_new { Arc::new(NoRows) } else { self.rows.clone() },
            notes: Arc::new(ProviderNotes(attempt.notes.clone())),
        }
    }

    /// Removes a resource and checks that it is gone. Rows of the registry go with the step's end, so a provider that only
    /// has those is not asked.
    pub(crate) async fn removed(
        &self,
        provider: &dyn Provider,
        context: &Context,
        spec: &Spec,
    ) -> Result<Removed, Failure> {
        let removed = provider.remove(context, spec).await?;
        if !provider.transactional()
            && matches!(provider.observe(context, spec).await?, Observed::Present { .. })
        {
            return Err(Failure::retryable("still_there", "the resource is still there after its removal"));
        }
        Ok(removed)
    }
}

/// The row of a step's resource; none if the step has no resource.
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

/// Rows of a tenant that is not written yet.
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
