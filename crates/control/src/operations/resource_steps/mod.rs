//! Steps that act on one resource through its provider: ensure and remove, and what they have in common.

mod ensure;
mod remove;

use serde_json::Value;
use tenantry_engine::{Operation, Step};
use tenantry_model::{Columns, Failure, Timestamp, columns};
use tenantry_provider::{Context, Observed, Provider as _, Removed, Spec};

use super::ProviderSteps;
use crate::ledger::StepInput;
use crate::resource::ResourceHandle;

pub(super) use ensure::Ensure;
pub(super) use remove::Remove;

impl ProviderSteps {
    /// Removes a resource and checks that it is gone. Rows of the registry go with the step's end, so a provider that only
    /// has those is not asked.
    pub(crate) async fn removed(
        &self,
        provider: &ResourceHandle,
        context: &Context,
        spec: &Spec,
    ) -> Result<Removed, Failure> {
        let removed = provider.remove(context, spec).await?;
        if !provider.transactional()
            && matches!(provider.observe(context, spec).await?, Observed::Present { .. })
        {
            let message = "the resource is still there after its removal";
            return Err(Failure::retryable("still_there", message).wrong_answer());
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
