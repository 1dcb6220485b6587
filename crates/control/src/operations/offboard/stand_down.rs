//! Waits until no other operation of the tenant runs.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tenantry_engine::{Attempt, Done, OperationState, StepState};
use tenantry_model::{Failure, Write};

use super::plan::STAND_DOWN;
use crate::ledger::{Act, StepInput, input_of, read};
use crate::operations::archive::{PresentResource, Purpose, archive_id};
use crate::operations::{Action, Compensation, ProviderSteps, writes};

/// Time until the other operations are looked at again.
const POLL: Duration = Duration::from_millis(50);

/// Fails with `tenant_busy` until the tenant's other operations, which were superseded, have ended; then removes what their
/// interrupted archives left. With the setting `children` it also waits for operations that this one detached, unless
/// they need attention.
pub(crate) struct StandDown;

#[async_trait]
impl Action for StandDown {
    fn kind(&self) -> &'static str {
        STAND_DOWN
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let operation = &attempt.operation;
        let input = input_of(&attempt.step)?;
        let children = input.settings.get("children").is_some();
        let rows = steps.rows.find("operations", &[("tenant_id", json!(operation.subject))]).await?;
        let this = json!(operation.id);
        for row in rows.iter().filter(|row| row["id"] != this) {
            let state: OperationState = read(&row["state"])?;
            let waits = match row["parent_id"] == this {
                true => children && state != OperationState::NeedsAttention,
                false => true,
            };
            if waits && !state.is_final() {
                let [id, kind] = ["id", "kind"].map(|column| row[column].as_str().unwrap_or_default());
                let message = format!("operation {id} ({kind}) has not ended yet");
                return Err(Failure::retryable("tenant_busy", message).after(POLL));
            }
        }
        if !children {
            clear_archives(steps, attempt).await?;
        }
        Ok(writes(Vec::new()))
    }

    async fn compensate(&self, _: &ProviderSteps, _: &Attempt) -> Result<Compensation, Failure> {
        Ok(Compensation::None("waiting changes nothing; the removed files belonged to no archive"))
    }
}

/// Removes files and temporary resources of archives whose operation was superseded while it wrote them. No other plan names
/// these resources.
async fn clear_archives(steps: &ProviderSteps, attempt: &Attempt) -> Result<(), Failure> {
    let operation = &attempt.operation;
    let runs = steps.store.runs_of(&operation.subject).await;
    let runs = runs.map_err(|why| Failure::retryable("registry_unavailable", why))?;
    let (mut cut_off, mut made) = (Vec::new(), BTreeMap::new());
    for (by, step) in runs.iter().flat_map(|run| run.steps.iter().map(|step| (run.operation.id, step))) {
        let input: StepInput = read(&step.input)?;
        if let (Some(resource), Act::Ensure) = (input.resource, input.act) {
            made.entry(resource).or_insert((step, input));
        }
        let archives = Purpose::Backup.as_str() == step.kind || Purpose::Export.as_str() == step.kind;
        if archives && by != operation.id && step.started_at.is_some() && step.state != StepState::Done {
            cut_off.push(archive_id(by, &step.key));
        }
    }
    if cut_off.is_empty() {
        return Ok(());
    }
    let mut present = Vec::with_capacity(made.len());
    for (step, input) in made.into_values() {
        let (_, spec) = steps.nameless(attempt, &input)?;
        let provider = steps.resources.get(&step.provider).cloned().ok_or_else(|| step.provider.clone());
        present.push(PresentResource { step: step.key.clone(), provider, kind: step.kind.clone(), spec });
    }
    for id in cut_off {
        steps.archives().clear(&steps.context(attempt), id, &present).await?;
        steps.archives().remove(id).await?;
    }
    Ok(())
}
