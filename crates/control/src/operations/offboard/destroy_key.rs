//! Destroys the tenant's key.

use async_trait::async_trait;
use serde_json::json;
use tenantry_engine::{Attempt, Done};
use tenantry_model::{Failure, Write};
use tenantry_store::Notification;

use super::plan::DESTROY_KEY;
use crate::ledger::{OperationInput, read, tenant_id};
use crate::operations::{Action, Compensation, ProviderSteps, irreversible};

/// Destroys the key, after which nothing that was sealed for the tenant can be read, from no backup either.
pub(crate) struct DestroyKey;

#[async_trait]
impl Action for DestroyKey {
    fn kind(&self) -> &'static str {
        DESTROY_KEY
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let start: OperationInput = read(&attempt.operation.input)?;
        let tenant = tenant_id(&attempt.operation)?;
        let reason = start.reason.unwrap_or_default();
        steps.keyring.destroy(tenant, &start.begun_by, &reason).await?;
        steps.store.notify(Notification::Erased(vec![tenant]));
        Ok(Done { output: json!(attempt.now), effects: Vec::new() })
    }

    async fn compensate(&self, _: &ProviderSteps, attempt: &Attempt) -> Result<Compensation, Failure> {
        Err(irreversible(&attempt.step))
    }
}
