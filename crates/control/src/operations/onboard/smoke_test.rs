//! Tests a tenant before its activation, through the public endpoints only: its record exists, its first administrator can
//! sign in, a write and a read work, and another tenant's data is not visible.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_engine::{Attempt, Direction, Done, Operation, Step};
use tenantry_model::{Failure, TenantId, Write, columns};
use tenantry_provider::Sealer;

use crate::access::secret;
use crate::control::Front;
use crate::ledger::{input_of, read, resource_id, tenant_id};
use crate::operations::{Action, Compensation, ProviderSteps, Start};
use crate::templates::SmokeSettings;
use crate::templates::built_in::SMOKE_TEST;

/// Time for which the test's one-time code is valid.
const SMOKE_CODE: Duration = Duration::from_secs(300);

/// Signs in as the first administrator with a one-time code and runs the test of [`SmokeSettings`].
pub(crate) struct SmokeTest;

#[async_trait]
impl Action for SmokeTest {
    fn kind(&self) -> &'static str {
        SMOKE_TEST
    }

    fn required_because(&self) -> Option<&'static str> {
        Some("no tenant becomes active without it")
    }

    /// The row of the one-time code.
    fn intend(&self, steps: &ProviderSteps, start: &Start<'_>) -> Vec<Write> {
        if start.direction == Direction::Compensate {
            return Vec::new();
        }
        let operation = &start.run.operation;
        let member = start.run.steps.iter().find_map(|step| step.output.get("member_id"));
        let code = secret::fingerprint(&code(&*steps.keyring, operation, start.step));
        vec![Write::upsert(
            "sign_in_codes",
            columns! {
            "hash": code, "tenant_id": operation.subject, "member_id": member, "purpose": "smoke_test",
            "expires_at": start.now + SMOKE_CODE, "used_at": () },
        )]
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let front = steps.front()?;
        let settings: SmokeSettings = read(&input_of(&attempt.step)?.settings)?;
        let canary: Option<Canary> = attempt
            .outputs
            .values()
            .find_map(|output| serde_json::from_value(output.get("canary")?.clone()).ok());
        let code = code(&*steps.keyring, &attempt.operation, &attempt.step);
        let tenant = tenant_id(&attempt.operation)?;
        let output = test(front, tenant, &code, &settings, canary.as_ref()).await?;
        // The code is not needed any more, used or not.
        let code = columns! { "hash": secret::fingerprint(&code) };
        Ok(Done { output, effects: vec![Write::delete("sign_in_codes", code)] })
    }

    async fn compensate(&self, _: &ProviderSteps, _: &Attempt) -> Result<Compensation, Failure> {
        Ok(Compensation::None("the test's row and object go with the resources that hold them"))
    }
}

/// The one-time code of an attempt. It follows from the keyring, so that it is stored nowhere.
fn code(sealer: &dyn Sealer, operation: &Operation, step: &Step) -> String {
    sealer.mac("smoke_test", &format!("{}:{}:{}", operation.id, step.key, step.attempts))
}

/// A row of another tenant that must stay invisible: the output `canary` of a database step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Canary {
    /// Table.
    table: String,
    /// Row id.
    id: String,
}

/// The id of the row that the test writes, unless the template gives another. It is the same in every attempt, so that an
/// attempt finds the row that an interrupted one has left.
fn row_id(tenant: TenantId) -> uuid::Uuid {
    resource_id(tenant, 0, "smoke_test").uuid()
}

/// Runs the test. Returns what was checked; fails with the first check that did not hold.
async fn test(
    front: &dyn Front,
    tenant: TenantId,
    code: &str,
    settings: &SmokeSettings,
    canary: Option<&Canary>,
) -> Result<Value, Failure> {
    let broken = |what: &str| Failure::retryable("smoke_test_failed", what).wrong_answer();
    let token = front.sign_in(code).await?;
    let me = front.me(&token).await?;
    if me.get("tenant_id") != Some(&json!(tenant)) {
        return Err(broken(
            "the first administrator's token is not for this tenant, or the tenant's record is missing",
        ));
    }
    let mut checked = vec!["record", "sign_in"];
    if let Some(table) = &settings.table {
        let mut row = settings.row.clone();
        let id = row.entry("id").or_insert_with(|| json!(row_id(tenant)));
        let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        let row = Value::Object(row);
        if let Err(refused) = front.insert(&token, table, &row).await {
            if front.get(&token, table, &id).await?.is_none() {
                return Err(refused);
            }
            // An interrupted attempt left the row; the customer must not see it.
            front.delete(&token, table, &id).await?;
            front.insert(&token, table, &row).await?;
        }
        let read = front
            .get(&token, table, &id)
            .await?
            .ok_or_else(|| broken("the row that was written cannot be read"))?;
        if settings.row.iter().any(|(column, value)| read.get(column) != Some(value)) {
            return Err(broken("the row that was read differs from the one that was written"));
        }
        front.delete(&token, table, &id).await?;
        checked.extend(["write", "read"]);
    }
    if let Some(key) = &settings.object {
        let content = tenant.to_string().into_bytes();
        // Replaces the object of an interrupted attempt.
        front.store(&token, key, &content).await?;
        if front.fetch(&token, key).await? != content {
            return Err(broken("the object that was read differs from the one that was stored"));
        }
        front.discard(&token, key).await?;
        checked.push("object");
    }
    if let Some(canary) = canary {
        if front.get(&token, &canary.table, &canary.id).await?.is_some() {
            // A retry does not repair a leak: the tenant stays inactive until an operator has looked at it.
            return Err(Failure::fatal("isolation_broken", "a row of another tenant is visible to this one"));
        }
        checked.push("isolation");
    }
    Ok(json!({ "checked": checked }))
}
