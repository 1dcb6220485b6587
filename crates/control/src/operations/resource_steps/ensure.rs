//! Creates or updates a resource.

use async_trait::async_trait;
use tenantry_engine::{Attempt, Direction, Done, Step};
use tenantry_model::{Failure, Write, columns};
use tenantry_provider::{Provider as _, Removed};

use super::resource_row;
use crate::ledger::input_of;
use crate::operations::registry::operation_of;
use crate::operations::repair::reconcile;
use crate::operations::{Action, Compensation, ProviderSteps, Start};

/// Creates or updates the step's resource and records it. In an operation on resources that the tenant has already,
/// reconciles it and updates the record.
pub(crate) struct Ensure;

#[async_trait]
impl Action for Ensure {
    fn kind(&self) -> &'static str {
        "ensure"
    }

    fn transactional(&self, steps: &ProviderSteps, step: &Step) -> bool {
        steps.provider(&step.provider).is_ok_and(|provider| provider.transactional())
    }

    fn intend(&self, _: &ProviderSteps, start: &Start<'_>) -> Vec<Write> {
        let Start { run, step, input, direction, now } = *start;
        if !operation_of(&run.operation).creates_resources() {
            return Vec::new();
        }
        let state = if direction == Direction::Run { "creating" } else { "removing" };
        let row = resource_row(&run.operation, step, input, state, &step.output, now);
        row.map(|row| Write::upsert("resources", row)).into_iter().collect()
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let creates = operation_of(&attempt.operation).creates_resources();
        let provider = steps.provider(&attempt.step.provider)?;
        let input = input_of(&attempt.step)?;
        let (context, spec) = steps.spec(attempt, &input).await?;
        let ensured = match creates || provider.transactional() {
            true => provider.ensure(&context, &spec).await?,
            false => reconcile(provider, &context, &spec).await?,
        };
        let (mut effects, outputs) = (ensured.writes, ensured.outputs);
        if creates {
            let Attempt { operation, step, now, .. } = attempt;
            let row = resource_row(operation, step, &input, "present", &outputs, *now);
            effects.extend(row.map(|row| Write::upsert("resources", row)));
        } else {
            let changed = columns! { "outputs": outputs, "updated_at": attempt.now };
            effects.push(Write::update("resources", columns! { "id": spec.resource }, changed));
        }
        Ok(Done { output: outputs, effects })
    }

    async fn compensate(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Compensation, Failure> {
        if !operation_of(&attempt.operation).creates_resources() {
            return Ok(Compensation::None("the tenant had the resource before the operation began"));
        }
        let input = input_of(&attempt.step)?;
        // No attempt changed anything, so there is nothing to remove; the provider may even be missing.
        let removed = match attempt.step.is_untouched() {
            true => Removed::default(),
            false => {
                let provider = steps.provider(&attempt.step.provider)?;
                let (context, spec) = steps.spec(attempt, &input).await?;
                steps.removed(provider, &context, &spec).await?
            }
        };
        let mut effects = removed.writes;
        let Attempt { operation, step, now, .. } = attempt;
        let row = resource_row(operation, step, &input, "absent", &removed.receipt, *now);
        effects.extend(row.map(|row| Write::upsert("resources", row)));
        Ok(Compensation::Writes(effects))
    }
}
