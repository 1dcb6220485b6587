//! Erasure: deletes a tenant at once, in any status, and proves it by a certificate (GDPR Art. 17). Its actions are those of an
//! offboarding.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_engine::{OnFailure, Run, Step};

use super::Operation;
use super::offboard::{Demand, deletes_already, has_failed, may_skip};
use crate::access::Caller;
use crate::access::idempotency::{Answered, IdempotencyKey};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::ledger::OperationKind;
use crate::operations::view::OperationView;

/// The operation that erases a tenant.
pub(super) struct Erase;

impl Operation for Erase {
    fn kind(&self) -> OperationKind {
        OperationKind::Erase
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Park
    }

    fn ends_tenant(&self) -> bool {
        true
    }

    fn deletes_tenant(&self, run: &Run) -> bool {
        !has_failed(run)
    }

    fn may_skip(&self, step: &Step) -> std::result::Result<(), &'static str> {
        may_skip(step)
    }

    fn may_cancel(&self) -> std::result::Result<(), &'static str> {
        Err("an erasure cannot be cancelled; retry its failed steps, or skip them with a reason")
    }
}

/// Request to erase a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseTenant {
    /// Reason. It is kept permanently, so it should not name a person.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
}

impl Control {
    /// Begins to erase a tenant in any status. If an operation deletes it already, or has deleted it, returns that one.
    pub async fn erase(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        what: &EraseTenant,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        self.demand(caller, id_or_slug, &demand(&what.reason), json!(what), key).await
    }

    /// Erases tenants again that the keyring's journal lists and the registry, restored from a backup, still has. To be called
    /// before anything is served.
    pub(crate) async fn erase_again(&self) -> Result<()> {
        let journal = self.shared.keyring.erasures().await.map_err(Error::unavailable)?;
        // Small pieces: a query has a bounded number of parameters.
        for erasures in journal.chunks(500) {
            let ids: Vec<String> = erasures.iter().map(|erasure| erasure.tenant.to_string()).collect();
            let living = self.shared.store.living(&ids).await.map_err(Error::unavailable)?;
            for erasure in erasures.iter().filter(|erasure| living.contains(&erasure.tenant.to_string())) {
                let caller = Caller { principal: erasure.requested_by.clone(), ..Caller::system() };
                let runs = self.shared.store.runs_of(&erasure.tenant.to_string()).await;
                if runs.map_err(Error::unavailable)?.iter().any(deletes_already) {
                    // The executor continues that operation.
                    continue;
                }
                let row = self.tenant_row(&caller, &erasure.tenant.to_string()).await?;
                let begun = self.end(&caller, row, &demand(&erasure.reason), None).await?;
                tracing::warn!(tenant = %erasure.tenant, operation = %begun.id, "erased tenant found in a restored registry; erasing it again");
            }
        }
        Ok(())
    }
}

fn demand(reason: &str) -> Demand<'_> {
    Demand { kind: OperationKind::Erase, action: "tenant.erase", reason, hold_days: None }
}
