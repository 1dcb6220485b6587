//! Replaces the secret of one resource's logins.

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_engine::{Attempt, Done, Step};
use tenantry_model::{Failure, Timestamp, Write, columns};
use tenantry_provider::{Former, Provider as _};

use super::{RotateCredentials, over};
use crate::ledger::{input_of, read};
use crate::operations::{Action, Compensation, ProviderSteps};

/// Creates a new secret, records until when the former one is valid, and adds the new outputs to the resource.
pub(crate) struct Rotate;

#[async_trait]
impl Action for Rotate {
    fn kind(&self) -> &'static str {
        "rotate"
    }

    fn transactional(&self, steps: &ProviderSteps, step: &Step) -> bool {
        steps.provider(&step.provider).is_ok_and(|provider| provider.transactional())
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let provider = steps.provider(&attempt.step.provider)?;
        let input = input_of(&attempt.step)?;
        let what: RotateCredentials = read(&input.settings)?;
        let (context, spec) = steps.spec(attempt, &input).await?;
        let rotate = provider.rotate().ok_or_else(|| {
            Failure::fatal("bad_plan", format!("provider `{}` has nothing to rotate", provider.name()))
        })?;
        let former = if what.grace().is_some() { Former::Stays } else { Former::Ends };
        let (resource, mut effects) = (json!(spec.resource), Vec::new());
        for row in steps.rows.find("rotations", &[("resource_id", resource.clone())]).await? {
            let by = row["operation_id"].as_str().unwrap_or_default();
            if by == spec.operation.to_string() {
                continue;
            }
            // Of two rotations that began at the same time, the other one may have ended first.
            if former == Former::Stays && read::<Timestamp>(&row["until"])? > attempt.now {
                let message = "another rotation has finished first, and its previous credentials are still valid: cancel this operation";
                return Err(Failure::fatal("rotation_under_way", message));
            }
            // The provider keeps one former secret; an older one has ended.
            effects.push(over(by, &spec.resource.to_string()));
        }
        let rotated = rotate.rotate(&context, &spec, former).await?;
        effects.extend(rotated.writes);
        let recorded = steps.rows.find("resources", &[("id", resource)]).await?.pop();
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

    async fn compensate(&self, _: &ProviderSteps, _: &Attempt) -> Result<Compensation, Failure> {
        Ok(Compensation::None("the new secret stays valid; another rotation replaces it"))
    }
}
