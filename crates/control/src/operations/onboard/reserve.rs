//! Reserves capacity for the resources of a new tenant.

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_engine::{Attempt, Done, Step};
use tenantry_model::{Failure, TenantId, Write};

use crate::ledger::{OperationInput, input_of, read, tenant_id};
use crate::operations::{Action, Compensation, ProviderSteps};
use crate::resource::capacity::{Slot, Slots};
use crate::templates::built_in::RESERVE;

/// Field of the output that holds the reserved slots.
const SLOTS: &str = "places";

/// Reserves one slot for each resource of the template in the tenant's region. Fails if there are too few.
pub(crate) struct Reserve;

#[async_trait]
impl Action for Reserve {
    fn kind(&self) -> &'static str {
        RESERVE
    }

    fn transactional(&self, _: &ProviderSteps, _: &Step) -> bool {
        true
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let operation = &attempt.operation;
        let start: OperationInput = read(&operation.input)?;
        let needed = read(&input_of(&attempt.step)?.settings)?;
        let tenant = tenant_id(operation)?;
        let (slots, effects) = steps.slots.reserve(tenant, &start.region, &needed, attempt.now).await?;
        Ok(Done { output: json!({ SLOTS: slots }), effects })
    }

    /// Frees the slots.
    async fn compensate(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Compensation, Failure> {
        steps.slots.release(tenant_id(&attempt.operation)?).await.map(Compensation::Writes)
    }
}

/// Writes that turn the reservations of finished steps into slots in use.
pub(super) fn keep<'a>(
    tenant: TenantId,
    outputs: impl Iterator<Item = &'a Value>,
) -> Result<Vec<Write>, Failure> {
    let mut writes = Vec::new();
    for slots in outputs.filter_map(|output| output.get(SLOTS)) {
        let slots: Vec<Slot> = read(slots)?;
        writes.extend(Slots::keep(tenant, &slots));
    }
    Ok(writes)
}
