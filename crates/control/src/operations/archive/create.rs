//! Creates an archive of the tenant's content: the actions `export` and `backup`.

use std::collections::HashMap;

use async_trait::async_trait;
use serde::Deserialize as _;
use serde_json::json;
use tenantry_engine::{Attempt, Done, Step};
use tenantry_model::{Failure, Write};

use super::{ArchiveSettings, ArchiveView, PresentResource, Purpose};
use crate::ledger::{Act, StepInput, input_of, read, settings_of, tenant_id};
use crate::operations::view::ResponseView;
use crate::operations::{Action, Compensation, ProviderSteps};
use tenantry_store::record::{EventRecord, event};

/// Writes an archive for this purpose; a backup is proven to be restorable as well. A further attempt writes it again under
/// the same id.
pub(crate) struct Create(pub Purpose);

#[async_trait]
impl Action for Create {
    fn kind(&self) -> &'static str {
        self.0.as_str()
    }

    fn required_because(&self) -> Option<&'static str> {
        Some("the operation has no other step; cancel the operation instead")
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let Self(purpose) = *self;
        let settings: ArchiveSettings = settings_of(&input_of(&attempt.step)?)?;
        let (context, tenant) = (steps.context(attempt), tenant_id(&attempt.operation)?);
        let present = steps.present_resources(attempt).await?;
        let mut done = steps.archives().make(attempt, purpose, &settings, &context, tenant, &present).await?;
        let output = &done.output;
        let data =
            json!({ "archive": output["id"], "size": output["size"], "expires_at": output["expires_at"] });
        let kind = if purpose == Purpose::Backup { "tenant.backed_up" } else { "tenant.exported" };
        let operation = Some(attempt.operation.id);
        done.effects.push(event(EventRecord { kind, tenant, operation, data, sealed: None }, attempt.now));
        Ok(done)
    }

    /// Removes the archive, and what the proof of a backup may have left.
    async fn compensate(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Compensation, Failure> {
        let present = steps.present_resources(attempt).await?;
        let writes = steps.archives().unmake(attempt, &steps.context(attempt), &present).await?;
        Ok(Compensation::Writes(writes))
    }

    fn respond(&self, step: &Step, response: &mut ResponseView) {
        let archive = ArchiveView::deserialize(&step.output).ok();
        response.archives.extend(archive.map(|archive| (step.key.clone(), archive)));
    }
}

impl ProviderSteps {
    /// The tenant's present resources, each as the step that created it was planned, in the order of an archive's folders.
    pub(crate) async fn present_resources(&self, attempt: &Attempt) -> Result<Vec<PresentResource>, Failure> {
        let subject = &attempt.operation.subject;
        let of_tenant = [("tenant_id", json!(subject)), ("state", json!("present"))];
        let rows = self.rows.find("resources", &of_tenant).await?;
        let runs = self.store.runs_of(subject).await;
        let runs = runs.map_err(|why| Failure::retryable("registry_unavailable", why))?;
        let mut made_by = HashMap::new();
        for step in runs.iter().flat_map(|run| &run.steps) {
            let input: StepInput = read(&step.input)?;
            if let (Some(resource), Act::Ensure) = (input.resource, input.act) {
                made_by.entry(resource.to_string()).or_insert((&step.key, input));
            }
        }
        let mut present = Vec::with_capacity(rows.len());
        for row in rows {
            let made = row["id"].as_str().and_then(|id| made_by.get(id));
            let (key, input) =
                made.ok_or_else(|| Failure::fatal("bad_ledger", "a resource without its step"))?;
            let generation = row["generation"].as_i64().unwrap_or(input.generation);
            let (_, spec) = self.spec(attempt, &StepInput { generation, ..input.clone() }).await?;
            let text = |column: &str| row[column].as_str().unwrap_or_default().to_owned();
            let provider = self.resources.get(&text("provider")).cloned().ok_or_else(|| text("provider"));
            present.push(PresentResource { step: (*key).clone(), provider, kind: text("kind"), spec });
        }
        present.sort_by(|a, b| a.step.cmp(&b.step));
        Ok(present)
    }
}
