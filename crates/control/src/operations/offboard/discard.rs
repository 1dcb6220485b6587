//! Deletes the tenant's archives.

use async_trait::async_trait;
use serde_json::json;
use tenantry_engine::{Attempt, Done};
use tenantry_model::id::ArchiveId;
use tenantry_model::{Failure, Write};

use super::plan::DISCARD;
use crate::ledger::{read, tenant_id};
use crate::operations::archive::forget;
use crate::operations::{Action, Compensation, ProviderSteps, irreversible};

/// Deletes every archive of the tenant, files first.
pub(crate) struct DiscardArchives;

#[async_trait]
impl Action for DiscardArchives {
    fn kind(&self) -> &'static str {
        DISCARD
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let tenant = tenant_id(&attempt.operation)?;
        let mut effects = Vec::new();
        for row in steps.rows.find("archives", &[("tenant_id", json!(tenant))]).await? {
            let id: ArchiveId = read(&row["id"])?;
            steps.archives().remove(id).await?;
            effects.push(forget(id));
        }
        Ok(Done { output: json!({ "archives": effects.len() }), effects })
    }

    async fn compensate(&self, _: &ProviderSteps, attempt: &Attempt) -> Result<Compensation, Failure> {
        Err(irreversible(&attempt.step))
    }
}
