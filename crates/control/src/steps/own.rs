//! Steps that no provider does: places, the smoke test, and the activation.

use std::time::Duration;

use serde_json::{Value, json};
use tenantry_engine::{Attempt, Done, Operation, Run, Step};
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::suspension::{Grade, Suspensions};
use tenantry_model::{Failure, TenantStatus, Timestamp, Write, columns};
use tenantry_provider::Sealer;

use super::ProviderSteps;
use super::input::{OperationInput, read, tenant_id};
use crate::capacity::{Place, Places};
use crate::planner::StepInput;
use crate::record::{Deed, Fact, audit, event};
use crate::secret;
use crate::smoke::{self, Canary, SmokeSettings};
use crate::suspension::denied;

/// Where the output of a reservation has its places.
const PLACES: &str = "places";

/// How long the smoke test's one-time code is good for.
const SMOKE_CODE: Duration = Duration::from_secs(300);

impl ProviderSteps {
    pub(super) async fn reserve(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let operation = &attempt.operation;
        let input: StepInput = read(&attempt.step.input)?;
        let start: OperationInput = read(&operation.input)?;
        let needed = read(&input.settings)?;
        let tenant = tenant_id(operation)?;
        let (places, effects) = self.places.reserve(tenant, &start.region, &needed, attempt.now).await?;
        Ok(Done { output: json!({ PLACES: places }), effects })
    }

    pub(super) async fn give_back(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let effects = self.places.give_back(tenant_id(&attempt.operation)?).await?;
        Ok(Done { output: attempt.step.output.clone(), effects })
    }

    /// The smoke test's one-time code: known to nobody but this process, without being stored.
    pub(super) fn smoke_code(&self, operation: &Operation, step: &Step) -> String {
        Sealer::mac(&*self.keyring, "smoke_test", &format!("{}:{}:{}", operation.id, step.key, step.attempts))
    }

    /// The row by which the smoke test's code is let in once.
    pub(super) fn smoke_code_row(&self, run: &Run, step: &Step, now: Timestamp) -> Write {
        let member = run.steps.iter().find_map(|s| s.output.get("member_id"));
        Write::upsert(
            "sign_in_codes",
            columns! {
            "hash": secret::fingerprint(&self.smoke_code(&run.operation, step)), "tenant_id": run.operation.subject,
            "member_id": member, "purpose": "smoke_test", "expires_at": now + SMOKE_CODE, "used_at": () },
        )
    }

    pub(super) async fn smoke_test(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let front = self
            .front
            .get()
            .ok_or_else(|| Failure::retryable("not_ready", "the server is still starting"))?;
        let input: StepInput = read(&attempt.step.input)?;
        let settings: SmokeSettings = read(&input.settings)?;
        let canary: Option<Canary> = attempt
            .outputs
            .values()
            .find_map(|output| serde_json::from_value(output.get("canary")?.clone()).ok());
        let code = self.smoke_code(&attempt.operation, &attempt.step);
        let tenant = tenant_id(&attempt.operation)?;
        let output = smoke::run(&**front, tenant, &code, &settings, canary.as_ref()).await?;
        // Used or not, the code has done its work.
        let code = columns! { "hash": secret::fingerprint(&code) };
        Ok(Done { output, effects: vec![Write::delete("sign_in_codes", code)] })
    }

    /// Activation is the point of no return: the template's check lets nothing inline come after it.
    pub(super) async fn activate(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let operation = &attempt.operation;
        let tenant = tenant_id(operation)?;
        let start: OperationInput = read(&operation.input)?;
        let illegal = |why| Failure::fatal("illegal", why);
        let mut status = next(TenantStatus::Provisioning, Event::Activate).map_err(illegal)?;
        // Reasons that came while it was made count from here on.
        let row = self.rows.find("tenants", &[("id", json!(tenant))]).await?.pop();
        let mut row = row.ok_or_else(|| Failure::fatal("no_tenant", "the tenant's row is missing"))?;
        let suspensions: Suspensions = read(&row["suspensions"].take())?;
        if !suspensions.0.is_empty() {
            status = next(status, Event::Suspend).map_err(illegal)?;
        }
        let fact = Fact {
            kind: "tenant.provisioned",
            tenant,
            operation: Some(operation.id),
            data: json!({ "plan": start.plan, "region": start.region }),
            sealed: Some(start.sealed),
        };
        let id = tenant.to_string();
        let deed = Deed {
            actor: "system",
            action: "tenant.activate",
            target: &id,
            tenant: Some(tenant),
            data: json!({ "operation_id": operation.id }),
        };
        let mut effects = vec![
            Write::compare_and_set(
                "tenants",
                columns! { "id": tenant },
                columns! { "status": TenantStatus::Provisioning, "version": row["version"].as_i64() },
                columns! {
                    "status": status, "activated_at": attempt.now, "last_error": (),
                    "suspended_at": suspensions.since(), "denied": denied(status, &suspensions).map(Grade::as_str),
                },
            ),
            event(fact, attempt.now),
            audit(deed, attempt.now),
        ];
        for places in attempt.outputs.values().filter_map(|output| output.get(PLACES)) {
            let places: Vec<Place> = read(places)?;
            effects.extend(Places::keep(tenant, &places));
        }
        Ok(Done { output: Value::Null, effects })
    }
}
