//! Asks every provider whether anything is left of the tenant, and removes copies of its rows from shared files.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_engine::{Attempt, Done};
use tenantry_model::id::ResourceId;
use tenantry_model::{Failure, Timestamp, Write};
use tenantry_provider::{Observed, Provider as _, Sealer as _};

use super::NAME;
use super::plan::{SCAN, Target};
use super::searched::{PurgedFile, files};
use crate::ledger::{input_of, read};
use crate::operations::{Action, Compensation, ProviderSteps};

/// A resource of which its provider saw nothing, in the output of the scan.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Absent {
    #[serde(flatten)]
    pub target: Named,
    pub absent_at: Timestamp,
    /// Files that its provider purged afterwards; with the first resource of each provider.
    #[serde(default)]
    pub purged: Vec<PurgedFile>,
}

/// A deleted resource with the HMAC of its name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Named {
    pub id: ResourceId,
    pub step: Option<String>,
    pub kind: String,
    pub provider: String,
    pub name: String,
    pub generation: i64,
    /// Receipt of a deletion before this operation.
    pub before: Value,
}

/// Removes what the deleted rows left in the files that the providers' other resources share.
async fn purge(steps: &ProviderSteps, absent: &mut [Absent]) -> Result<(), Failure> {
    let mut done = BTreeSet::new();
    for this in absent {
        let name = &this.target.provider;
        if let Some(purge) = steps.provider(name)?.purge()
            && done.insert(name.clone())
        {
            this.purged = files(name, purge.purge().await?, this.absent_at);
        }
    }
    Ok(())
}

/// Fails with `not_gone` while a provider reports a resource that the tenant ever had.
pub(crate) struct ScanProviders;

#[async_trait]
impl Action for ScanProviders {
    fn kind(&self) -> &'static str {
        SCAN
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let input = input_of(&attempt.step)?;
        let targets: Vec<Target> = read(&input.settings)?;
        let (mut absent, mut left) = (Vec::new(), Vec::new());
        for Target { step, kind, provider: name, input, ours } in targets {
            let (context, spec) = steps.nameless(attempt, &input)?;
            let provider = steps.provider(&name)?;
            match provider.observe(&context, &spec).await? {
                Observed::Present { .. } => left.push(format!("{} ({name})", spec.resource)),
                // A created resource whose owner tag has changed is not gone, and its content is unknown.
                Observed::Foreign if ours => {
                    left.push(format!("{} ({name}; its owner tag has changed)", spec.resource));
                }
                Observed::Foreign | Observed::Absent => {}
            }
            if !left.is_empty() {
                continue;
            }
            let recorded = steps.rows.find("resources", &[("id", json!(spec.resource))]).await?.pop();
            let before = recorded.filter(|_| step.is_none()).map(|mut row| row["outputs"].take());
            let target = Named {
                id: spec.resource,
                step,
                kind,
                provider: name,
                name: steps.keyring.mac(NAME, &spec.name),
                generation: spec.generation,
                before: steps.anonymous(&before.unwrap_or_default()),
            };
            absent.push(Absent { target, absent_at: attempt.now, purged: Vec::new() });
        }
        if left.is_empty() {
            purge(steps, &mut absent).await?;
            return Ok(Done { output: json!(absent), effects: Vec::new() });
        }
        let message = format!(
            "resources still exist after the deletion: {}; no certificate was issued",
            left.join(", ")
        );
        Err(Failure::retryable("not_gone", message).wrong_answer())
    }

    async fn compensate(&self, _: &ProviderSteps, _: &Attempt) -> Result<Compensation, Failure> {
        Ok(Compensation::None("looking changes nothing"))
    }
}
