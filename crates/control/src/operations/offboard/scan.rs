//! Asks every provider whether anything is left of the tenant.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_engine::{Attempt, Done};
use tenantry_model::id::ResourceId;
use tenantry_model::{Failure, Timestamp, Write};
use tenantry_provider::{Observed, Provider as _, Sealer as _};

use super::NAME;
use super::plan::{SCAN, Target};
use crate::ledger::{input_of, read};
use crate::operations::{Action, Compensation, ProviderSteps};

/// A resource of which its provider saw nothing, in the output of the scan.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Absent {
    #[serde(flatten)]
    pub target: Named,
    pub absent_at: Timestamp,
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
            absent.push(Absent { target, absent_at: attempt.now });
        }
        if left.is_empty() {
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
