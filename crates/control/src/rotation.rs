//! Rotation of credentials (S0.42-44): what a tenant's own applications log in with gets a new secret, and the one that they have
//! is good for a while longer, so that nobody is shut out in between. An operation like a repair; the end of the former
//! secret is the sweep's. Refused where two are good already, or where there is none.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_engine::{Attempt, Done, OnFailure, Policy, Run, Step};
use tenantry_model::{Failure, Timestamp, Write, columns};
use tenantry_provider::{Former, Provider, Retirement};

use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, ErrorKind, FieldError, Result};
use crate::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::onboard::id_of;
use crate::planner::{Act, StepInput};
use crate::record::{Deed, audit};
use crate::repair::{after, is_repairable};
use crate::steps::{ProviderSteps, read};
use crate::view::OperationView;
use tenantry_store::{Unit, entity};

/// The kind of an operation that rotates.
pub const ROTATE_CREDENTIALS: &str = "rotate_credentials";
/// How long the former secret is good, unless somebody says so: a day.
const GRACE_HOURS: u32 = 24;
/// The longest that it may be: 30 days.
const MAX_GRACE_HOURS: u32 = 720;

/// How a tenant's credentials are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RotateCredentials {
    /// How many hours the former secret is good after the new one was made; 0: not at all, and neither are sessions that were begun
    /// with it. At most 720.
    pub grace_hours: u32,
}

impl Default for RotateCredentials {
    fn default() -> Self {
        Self { grace_hours: GRACE_HOURS }
    }
}

impl RotateCredentials {
    /// None: the former secret ends at once.
    fn grace(self) -> Option<Duration> {
        (self.grace_hours > 0).then(|| Duration::from_secs(u64::from(self.grace_hours) * 3_600))
    }
}

impl Control {
    /// Begins to give an active or suspended tenant's applications new secrets.
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
            return Err(Error::invalid("request_invalid", vec![FieldError::new("grace_hours", message)]));
        }
        let row = self.tenant_row(caller, id_or_slug).await?;
        let asked = format!("{ROTATE_CREDENTIALS} {}", row.id);
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
            let provider = self.shared.providers.get(&step.provider);
            is_repairable(step) && provider.is_some_and(|provider| provider.rotate().is_some())
        });
        let steps = steps.map(|step| rotation_of(step, what)).collect::<Result<Vec<_>>>()?;
        if steps.is_empty() {
            let message = "nobody logs in past Tenantry to anything that this tenant has, such as its SQLite database: there is nothing to rotate";
            return Err(Error::conflict("nothing_to_rotate", message));
        }
        let operation = after(&made.operation, ROTATE_CREDENTIALS, &caller.principal, now)?;
        let deed = Deed {
            actor: &caller.principal,
            action: "tenant.rotate_credentials",
            target: &row.id,
            tenant: Some(id_of(row)?),
            data: json!({ "operation_id": operation.id, "grace_hours": what.grace_hours }),
        };
        self.begin(row, Run { operation, steps }, vec![audit(deed, now)], once).await
    }

    /// Fails while former secrets are good: there would be three.
    async fn no_other_rotation(&self, row: &entity::tenant::Model, now: Timestamp) -> Result<()> {
        for rotation in self.shared.store.rotations(&row.id).await.map_err(Error::unavailable)? {
            let until = Timestamp::from(rotation.until);
            if until > now {
                let message = format!(
                    "the secret before the newest is good until {until}: rotate again then, or with a grace of 0 hours, which ends both"
                );
                return Err(Error::conflict("rotation_under_way", message));
            }
            // Its time is over, and the sweep has not been there yet.
            self.retire(rotation).await.map_err(|why| {
                let message = "a former secret, whose time is over, cannot be ended just now; try again";
                let cause = Some(why.to_string());
                Error { cause, ..Error::new(ErrorKind::Unavailable, "unavailable", message) }
            })?;
        }
        Ok(())
    }

    /// Ends former secrets whose time is over. Answers how many; what does not answer has its turn later.
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
                    Err(why) => tracing::warn!(resource, %why, "a former secret is ended later"),
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
        // What has gone took its secrets along.
        if let (Some(resource), Some(tenant)) = (resource.filter(|it| it.state != "absent"), tenant) {
            let bad =
                |why| Failure::fatal("bad_ledger", format!("the rotation's record does not fit: {why}"));
            let provider = self.shared.providers.get(&resource.provider).ok_or_else(|| {
                Failure::fatal(
                    "no_provider",
                    format!("provider `{}` is not configured here", resource.provider),
                )
            })?;
            let retirement = Retirement {
                tenant: tenant.id.parse().map_err(bad)?,
                resource: resource.id.parse().map_err(bad)?,
                region: tenant.region,
                name: resource.name,
                claim: resource.claim,
                rotation: rotation.operation_id.parse().map_err(bad)?,
            };
            if let Some(rotate) = provider.rotate() {
                let _place = self.shared.serving.place(&**provider).await;
                writes = rotate.retire(store, &retirement).await?;
            }
        }
        writes.push(over(&rotation.operation_id, &rotation.resource_id));
        store.commit(Unit::new(writes)).await.map_err(|why| Failure::retryable("registry_unavailable", why))
    }
}

impl ProviderSteps {
    /// Gives the applications of one resource a new secret.
    pub(crate) async fn rotate(
        &self,
        attempt: &Attempt,
        provider: &dyn Provider,
    ) -> std::result::Result<Done<Write>, Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let what: RotateCredentials = read(&input.settings)?;
        let (context, spec) = self.spec(attempt, &input).await?;
        let rotate = provider.rotate().ok_or_else(|| {
            Failure::fatal("bad_plan", format!("provider `{}` has nothing to rotate", provider.name()))
        })?;
        let former = if what.grace().is_some() { Former::Stays } else { Former::Ends };
        let (resource, mut effects) = (json!(spec.resource), Vec::new());
        for row in self.rows.find("rotations", &[("resource_id", resource.clone())]).await? {
            let by = row["operation_id"].as_str().unwrap_or_default();
            if by == spec.operation.to_string() {
                continue;
            }
            // Of two that were asked for at once, one may have come to its end before the other began.
            if former == Former::Stays && read::<Timestamp>(&row["until"])? > attempt.now {
                let message = "another rotation was faster, and the secret before its own is still good: cancel this one";
                return Err(Failure::fatal("rotation_under_way", message));
            }
            // There is one former secret: whatever was good before that is none any more.
            effects.push(over(by, &spec.resource.to_string()));
        }
        let place = self.serving.place(provider).await;
        let rotated = rotate.rotate(&context, &spec, former).await?;
        drop(place);
        effects.extend(rotated.writes);
        let recorded = self.rows.find("resources", &[("id", resource)]).await?.pop();
        let mut outputs = recorded.and_then(|row| row["outputs"].as_object().cloned()).unwrap_or_default();
        outputs.extend(rotated.outputs);
        let changed = columns! { "outputs": outputs, "updated_at": attempt.now };
        effects.push(Write::update("resources", columns! { "id": spec.resource }, changed));
        let until = what.grace().map(|grace| attempt.now + grace);
        effects.extend(until.map(|until| {
            let row = columns! {
                "operation_id": spec.operation, "resource_id": spec.resource, "tenant_id": spec.tenant.id, "until": until,
            };
            Write::upsert("rotations", row)
        }));
        outputs.insert("former_until".to_owned(), json!(until));
        Ok(Done { output: Value::Object(outputs), effects })
    }
}

/// The step that rotates what another one made.
fn rotation_of(made: &Step, what: RotateCredentials) -> Result<Step> {
    let input: StepInput = serde_json::from_value(made.input.clone()).map_err(Error::internal)?;
    let input = StepInput { act: Act::Rotate, settings: json!(what), ..input };
    // It may not undo what works: it asks for a person.
    let policy = Policy { on_failure: OnFailure::Park, ..made.policy.clone() };
    let input = serde_json::to_value(input).map_err(Error::internal)?;
    let step = Step::new(&made.key, &made.kind, &made.provider, policy, input);
    Ok(Step { position: made.position, ..step })
}

/// A former secret that is not good any more.
fn over(operation: &str, resource: &str) -> Write {
    Write::delete("rotations", columns! { "operation_id": operation, "resource_id": resource })
}
