//! Deletes a resource permanently, as a step of an operation that ends the tenant.

use async_trait::async_trait;
use serde_json::json;
use tenantry_engine::{Attempt, Direction, Done};
use tenantry_model::{Failure, Write, columns};
use tenantry_provider::{Observed, Provider as _, Spec};

use crate::ledger::{OperationInput, OperationKind, input_of, read};
use crate::operations::offboard::{BACKUP, Deleted};
use crate::operations::{Action, Compensation, ProviderSteps, Start};
use crate::resource::staying;

/// Deletes the step's resource without the tenant's key or personal data, checks that it is gone, and records the receipt.
pub(crate) struct Remove;

#[async_trait]
impl Action for Remove {
    fn kind(&self) -> &'static str {
        "remove"
    }

    fn intend(&self, _: &ProviderSteps, start: &Start<'_>) -> Vec<Write> {
        let Some(resource) = start.input.resource.filter(|_| start.direction == Direction::Run) else {
            return Vec::new();
        };
        let removing = columns! { "state": "removing", "updated_at": start.now };
        vec![Write::update("resources", columns! { "id": resource }, removing)]
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let provider = steps.provider(&attempt.step.provider)?;
        let input = input_of(&attempt.step)?;
        let (context, spec) = steps.nameless(attempt, &input)?;
        // A registry that is restored from an older backup must delete the tenant again. Until an offboarding has its last
        // backup, it can be taken back.
        let is_final = OperationKind::of(&attempt.operation) == OperationKind::Erase
            || attempt.outputs.contains_key(BACKUP);
        if is_final {
            let start: OperationInput = read(&attempt.operation.input)?;
            let reason = start.reason.unwrap_or_default();
            steps.keyring.journal(spec.tenant.id, &start.begun_by, &reason).await?;
        }
        let removed = steps.removed(provider, &context, &spec).await?;
        let receipt = steps.anonymous(&removed.receipt);
        let mut effects = removed.writes;
        effects.push(Write::update(
            "resources",
            columns! { "id": spec.resource },
            columns! { "state": "absent", "outputs": receipt, "updated_at": attempt.now },
        ));
        let output = json!(Deleted { deleted_at: attempt.now, receipt });
        Ok(Done { output, effects })
    }

    /// The customer came back during the hold: creates the resource again, as a new generation.
    async fn compensate(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Compensation, Failure> {
        let provider = steps.provider(&attempt.step.provider)?;
        let start: OperationInput = read(&attempt.operation.input)?;
        let (context, spec) = steps.spec(attempt, &input_of(&attempt.step)?).await?;
        let id = columns! { "id": spec.resource };
        let effects = match provider.observe(&context, &spec).await? {
            // The step was cut off before it deleted anything.
            Observed::Present { .. } => {
                let as_before = columns! { "state": "present", "updated_at": attempt.now };
                vec![Write::update("resources", id, as_before)]
            }
            Observed::Absent | Observed::Foreign => {
                let spec = Spec { generation: start.generation, ..spec };
                let ensured = staying(provider.ensure(&context, &spec)).await?;
                let again = columns! {
                    "state": "present", "outputs": ensured.outputs, "generation": spec.generation,
                    "updated_at": attempt.now,
                };
                ensured.writes.into_iter().chain([Write::update("resources", id, again)]).collect()
            }
        };
        Ok(Compensation::Writes(effects))
    }
}
