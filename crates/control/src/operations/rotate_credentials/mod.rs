//! Rotation of credentials: replaces the secrets with which a tenant's own applications log in. The former secret stays valid
//! for a grace period, so that no application is locked out; a background task ends it. At most two secrets are valid.

mod rotate;

use std::time::Duration;
use tenantry_model::ErrorCode;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_engine::{OnFailure, Run, Step};
use tenantry_model::{Failure, Timestamp, Write, columns};
use tenantry_provider::{Provider as _, Retirement};
use tenantry_store::{WriteBatch, entity};

use super::repair::{after, is_repairable, succeeded_event};
use super::{Operation, Transition, no_provider};
use crate::access::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, FieldError, Result};
use crate::ledger::{Act, OperationKind, StepInput, id_of};
use crate::operations::view::OperationView;
use tenantry_store::record::{AuditRecord, audit};

pub(super) use rotate::Rotate;

/// The operation that rotates a tenant's credentials.
pub(super) struct RotateOperation;

impl Operation for RotateOperation {
    fn kind(&self) -> OperationKind {
        OperationKind::RotateCredentials
    }

    /// It must not undo what works.
    fn on_failure(&self) -> OnFailure {
        OnFailure::Park
    }

    fn creates_resources(&self) -> bool {
        false
    }

    fn on_transition(&self, change: &Transition<'_>) -> Vec<Write> {
        succeeded_event(change, "tenant.credentials_rotated")
    }
}

/// Default grace period of the former secret, in hours.
const GRACE_HOURS: u32 = 24;
/// Longest grace period, in hours.
const MAX_GRACE_HOURS: u32 = 720;

/// Request for a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RotateCredentials {
    /// Hours for which the former secret stays valid; 0 ends it at once, together with sessions that were opened with it. At
    /// most 720.
    pub grace_hours: u32,
}

impl Default for RotateCredentials {
    fn default() -> Self {
        Self { grace_hours: GRACE_HOURS }
    }
}

impl RotateCredentials {
    /// The grace period; none if the former secret ends at once.
    fn grace(self) -> Option<Duration> {
        (self.grace_hours > 0).then(|| Duration::from_secs(u64::from(self.grace_hours) * 3_600))
    }
}

impl Control {
    /// Begins a rotation for an active or suspended tenant.
    pub async fn rotate_credentials(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        what: RotateCredentials,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        caller.require(Permission::WriteTenants)?;
        if what.grace_hours > MAX_GRACE_HOURS {
            let message = format!("must be at most {MAX_GRACE_HOURS}");
            return Err(Error::invalid(
                ErrorCode::RequestInvalid,
                vec![FieldError::new("grace_hours", message)],
            ));
        }
        let row = self.tenant_row(caller, id_or_slug).await?;
        let asked = format!("{} {}", OperationKind::RotateCredentials.as_str(), row.id);
        let once = key.map(|key| Once::new(caller, &key, &asked, &json!(what)));
        match self.once(once.as_ref(), self.try_rotate(caller, &row, what, once.as_ref())).await? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => self.answered_before(&answer).await,
        }
    }

    async fn try_rotate(
        &self,
        caller: &Caller,
        row: &entity::tenant::Model,
        what: RotateCredentials,
        once: Option<&Once>,
    ) -> Result<OperationView> {
        let (made, now) = (self.made(row).await?, self.now());
        if what.grace().is_some() {
            self.no_other_rotation(row, now).await?;
        }
        let steps = made.steps.iter().filter(|step| {
            let provider = self.shared.resources.get(&step.provider);
            is_repairable(step) && provider.is_some_and(|provider| provider.rotate().is_some())
        });
        let steps = steps.map(|step| rotation_of(step, what)).collect::<Result<Vec<_>>>()?;
        if steps.is_empty() {
            let message = "this tenant has no credentials to rotate (SQLite databases have no logins)";
            return Err(Error::new(ErrorCode::NothingToRotate, message));
        }
        let operation = after(&made.operation, &RotateOperation.kind(), &caller.principal, now)?;
        let audited = AuditRecord {
            actor: &caller.principal,
            action: "tenant.rotate_credentials",
            target: &row.id,
            tenant: Some(id_of(row)?),
            data: json!({ "operation_id": operation.id, "grace_hours": what.grace_hours }),
        };
        self.begin(row, Run { operation, steps }, vec![audit(audited, now)], once).await
    }

    /// Fails while a former secret is valid: a third valid secret would be created.
    async fn no_other_rotation(&self, row: &entity::tenant::Model, now: Timestamp) -> Result<()> {
        for rotation in self.shared.store.rotations(&row.id).await.map_err(Error::unavailable)? {
            let until = Timestamp::from(rotation.until);
            if until > now {
                let message = format!(
                    "the previous credentials are valid until {until}; rotate again after that, or at once with `--now` (`grace_hours` 0), which revokes all earlier ones"
                );
                return Err(Error::new(ErrorCode::RotationUnderWay, message));
            }
            // It has expired, and the background task has not ended it yet.
            self.retire(rotation).await.map_err(|why| match why.code.as_str() {
                "registry_unavailable" => Error::unavailable(why),
                _ => Error::provider("the provider of the expired previous credentials", why),
            })?;
        }
        Ok(())
    }

    /// Ends expired former secrets. Returns their number; one whose provider does not answer is left for the next call.
    pub(crate) async fn retire_due(&self) -> Result<usize> {
        let (mut ended, mut after) = (0, None);
        loop {
            let due = self.shared.store.rotations_due(self.now(), after.as_ref()).await;
            let due = due.map_err(Error::unavailable)?;
            let Some(last) = due.last() else { return Ok(ended) };
            after = Some((last.operation_id.clone(), last.resource_id.clone()));
            for rotation in due {
                let resource = rotation.resource_id.clone();
                match self.retire(rotation).await {
                    Ok(()) => ended += 1,
                    Err(why) => tracing::warn!(resource, %why, "former secret not ended yet"),
                }
            }
        }
    }

    async fn retire(&self, rotation: entity::rotation::Model) -> std::result::Result<(), Failure> {
        let unread = |why| Failure::retryable("registry_unavailable", why);
        let store = &self.shared.store;
        let resource = store.resource(&rotation.resource_id).await.map_err(unread)?;
        let tenant = store.tenant(&rotation.tenant_id).await.map_err(unread)?;
        let mut writes = Vec::new();
        // A resource that is gone has no secrets.
        if let (Some(resource), Some(tenant)) = (resource.filter(|it| it.state != "absent"), tenant) {
            let bad =
                |why| Failure::fatal("bad_ledger", format!("the rotation's record does not fit: {why}"));
            let provider = self.shared.resources.get(&resource.provider);
            let provider = provider.ok_or_else(|| no_provider(&resource.provider))?;
            let retirement = Retirement {
                tenant: tenant.id.parse().map_err(bad)?,
                resource: resource.id.parse().map_err(bad)?,
                region: tenant.region,
                name: resource.name,
                claim: resource.claim,
                rotation: rotation.operation_id.parse().map_err(bad)?,
            };
            if let Some(rotate) = provider.rotate() {
                writes = rotate.retire(store, &retirement).await?;
            }
        }
        writes.push(over(&rotation.operation_id, &rotation.resource_id));
        store
            .commit(WriteBatch::new(writes))
            .await
            .map_err(|why| Failure::retryable("registry_unavailable", why))
    }
}

/// The step that rotates the credentials of a resource that an onboarding's step created.
fn rotation_of(made: &Step, what: RotateCredentials) -> Result<Step> {
    let input: StepInput = serde_json::from_value(made.input.clone()).map_err(Error::internal)?;
    let input = StepInput { act: Act::Rotate, settings: json!(what), ..input };
    let policy = RotateOperation.policy(made.policy.clone());
    let input = serde_json::to_value(input).map_err(Error::internal)?;
    let step = Step::new(&made.key, &made.kind, &made.provider, policy, input);
    Ok(Step { position: made.position, ..step })
}

/// Removes the record of a former secret that has ended.
fn over(operation: &str, resource: &str) -> Write {
    Write::delete("rotations", columns! { "operation_id": operation, "resource_id": resource })
}
