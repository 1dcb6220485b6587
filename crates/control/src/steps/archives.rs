//! Steps that put what a tenant has into an archive, or take it from there.

use std::collections::HashMap;

use serde_json::json;
use tenantry_engine::{Attempt, Done, Verb};
use tenantry_model::{Failure, Write};

use super::ProviderSteps;
use super::input::{read, settings_of, tenant_id};
use crate::archive::{ArchiveSettings, LoadSettings, Purpose, Standing};
use crate::planner::{Act, StepInput};
use crate::record::{Fact, event};

impl ProviderSteps {
    /// What the tenant has by now, each as the step that made it was planned.
    pub(crate) async fn standing(&self, attempt: &Attempt) -> Result<Vec<Standing>, Failure> {
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
        let mut standing = Vec::with_capacity(rows.len());
        for row in rows {
            let made = row["id"].as_str().and_then(|id| made_by.get(id));
            let (key, input) =
                made.ok_or_else(|| Failure::fatal("bad_ledger", "a resource without its step"))?;
            let (_, spec) = self.spec(attempt, input).await?;
            let text = |column: &str| row[column].as_str().unwrap_or_default().to_owned();
            let provider = self.providers.get(&text("provider")).cloned().ok_or_else(|| text("provider"));
            standing.push(Standing { step: (*key).clone(), provider, kind: text("kind"), spec });
        }
        // The order in which they lie in an archive.
        standing.sort_by(|a, b| a.step.cmp(&b.step));
        Ok(standing)
    }

    pub(super) async fn archive(&self, attempt: &Attempt, purpose: Purpose) -> Result<Done<Write>, Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let settings: ArchiveSettings = settings_of(&input)?;
        let (context, tenant) = (self.context(attempt), tenant_id(&attempt.operation)?);
        let standing = self.standing(attempt).await?;
        if attempt.verb == Verb::Undo {
            return self.archives.unmake(attempt, &context, &standing).await;
        }
        let mut done = self.archives.make(attempt, purpose, &settings, &context, tenant, &standing).await?;
        let output = &done.output;
        let data =
            json!({ "archive": output["id"], "size": output["size"], "expires_at": output["expires_at"] });
        let kind = if purpose == Purpose::Backup { "tenant.backed_up" } else { "tenant.exported" };
        let operation = Some(attempt.operation.id);
        done.effects.push(event(Fact { kind, tenant, operation, data, sealed: None }, attempt.now));
        Ok(done)
    }

    pub(super) async fn load(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let settings: LoadSettings = read(&input.settings)?;
        let (context, tenant) = (self.context(attempt), tenant_id(&attempt.operation)?);
        let mut done =
            self.archives.load(&settings, &context, tenant, &self.standing(attempt).await?).await?;
        let (operation, data) = (Some(attempt.operation.id), json!({ "archive": settings.archive }));
        let fact = Fact { kind: "tenant.restored", tenant, operation, data, sealed: None };
        done.effects.push(event(fact, attempt.now));
        Ok(done)
    }
}
