//! The smoke test before ACTIVE (S0.37): the tenant's own way in, through public endpoints only. The record exists,
//! the first administrator can sign in, a representative write and read work, another tenant's data is not visible.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tenantry_model::{Failure, TenantId};

use crate::planner::resource_id;

/// The public endpoints as a tenant's client sees them.
#[async_trait]
pub trait Front: Send + Sync + 'static {
    /// Exchanges a one-time code for a token.
    async fn sign_in(&self, code: &str) -> Result<String, Failure>;
    /// Who the token says that its bearer is: `{tenant_id, role, …}`.
    async fn me(&self, token: &str) -> Result<Value, Failure>;
    /// Writes a row of the tenant's; gives it back with its `id`.
    async fn insert(&self, token: &str, table: &str, row: &Value) -> Result<Value, Failure>;
    /// Reads a row; none when there is none that the bearer may see.
    async fn get(&self, token: &str, table: &str, id: &str) -> Result<Option<Value>, Failure>;
    /// Deletes a row.
    async fn delete(&self, token: &str, table: &str, id: &str) -> Result<(), Failure>;
    /// Stores an object through an address that the token signs.
    async fn store(&self, token: &str, key: &str, bytes: &[u8]) -> Result<(), Failure>;
    /// Reads an object through an address that the token signs.
    async fn fetch(&self, token: &str, key: &str) -> Result<Vec<u8>, Failure>;
    /// Deletes an object through an address that the token signs.
    async fn discard(&self, token: &str, key: &str) -> Result<(), Failure>;
}

/// What a template may say of its smoke test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeSettings {
    /// The table in which a row is written, read and deleted.
    #[serde(default)]
    pub table: Option<String>,
    /// That row.
    #[serde(default)]
    pub row: Map<String, Value>,
    /// Key of an object that is stored, read and deleted, through signed addresses.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1024))]
    pub object: Option<String>,
}

/// A row of another tenant's that must stay invisible: what a database step gives as its output `canary`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// Where it is.
    pub table: String,
    /// Which one.
    pub id: String,
}

/// The id of the row that the test writes: always the same for a tenant, so that the next attempt finds what one that
/// was cut off has left. A template may give another.
fn row_id(tenant: TenantId) -> uuid::Uuid {
    resource_id(tenant, 0, "smoke_test").uuid()
}

/// Runs the test. Answers what was checked; fails with what did not hold.
pub async fn run(
    front: &dyn Front,
    tenant: TenantId,
    code: &str,
    settings: &SmokeSettings,
    canary: Option<&Canary>,
) -> Result<Value, Failure> {
    let broken = |what: &str| Failure::retryable("smoke_test_failed", what);
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
            // Left by an attempt that was cut off: the customer shall never see it.
            front.delete(&token, table, &id).await?;
            front.insert(&token, table, &row).await?;
        }
        let read = front
            .get(&token, table, &id)
            .await?
            .ok_or_else(|| broken("the row that was written cannot be read"))?;
        if settings.row.iter().any(|(column, value)| read.get(column) != Some(value)) {
            return Err(broken("the row that was read is not the one that was written"));
        }
        front.delete(&token, table, &id).await?;
        checked.extend(["write", "read"]);
    }
    if let Some(key) = &settings.object {
        let content = tenant.to_string().into_bytes();
        // In place of one that an attempt that was cut off has left.
        front.store(&token, key, &content).await?;
        if front.fetch(&token, key).await? != content {
            return Err(broken("the object that was read is not the one that was stored"));
        }
        front.discard(&token, key).await?;
        checked.push("object");
    }
    if let Some(canary) = canary {
        if front.get(&token, &canary.table, &canary.id).await?.is_some() {
            // Trying again cannot mend a leak: nobody is let in until somebody has looked.
            return Err(Failure::fatal(
                "isolation_broken",
                "a row of another tenant's is visible to this one",
            ));
        }
        checked.push("isolation");
    }
    Ok(json!({ "checked": checked }))
}
