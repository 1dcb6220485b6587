//! Looks through the registry for rows of the tenant that the wipe should have removed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_engine::{Attempt, Done};
use tenantry_model::{Failure, TenantId, Write};
use tenantry_provider::Rows;
use tenantry_store::tables;

use super::plan::{DESTROY_KEY, SCAN_REGISTRY};
use super::searched::{KEYRING, REGISTRY, RegistryScan, files};
use super::wipe::{ANSWERS, KEPT};
use crate::ledger::tenant_id;
use crate::operations::{Action, Compensation, ProviderSteps};

/// Fails while a table still has rows of the tenant; gives the tables that were looked through,
/// and the files of registry and keyring, from which it removes copies of deleted rows.
pub(crate) struct ScanRegistry;

#[async_trait]
impl Action for ScanRegistry {
    fn kind(&self) -> &'static str {
        SCAN_REGISTRY
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let tenant = tenant_id(&attempt.operation)?;
        let purged = steps.store.purge().await;
        let purged = purged.map_err(|why| Failure::retryable("registry_unavailable", why))?;
        let mut purged = files(REGISTRY, purged, attempt.now);
        purged.extend(files(KEYRING, steps.keyring.purge().await?, attempt.now));
        let mut found = remains(&*steps.rows, tenant).await?;
        let keeps = attempt.outputs.get(DESTROY_KEY).is_none_or(Value::is_null);
        if keeps {
            found.remove("archives");
        }
        let left: Vec<&str> = found.iter().filter(|(_, rows)| **rows > 0).map(|(table, _)| *table).collect();
        if !left.is_empty() {
            let message =
                format!("the registry still has rows in {}; no certificate was issued", left.join(", "));
            return Err(Failure::retryable("not_gone", message).wrong_answer());
        }
        if keeps || steps.keyring.is_destroyed(tenant).await? {
            let tables = found.into_iter().map(|(table, rows)| (table.to_owned(), rows)).collect();
            let output = json!(RegistryScan { tables, files: purged });
            return Ok(Done { output, effects: Vec::new() });
        }
        let message = "the tenant's key still exists; no certificate was issued";
        Err(Failure::retryable("not_gone", message).wrong_answer())
    }

    async fn compensate(&self, _: &ProviderSteps, _: &Attempt) -> Result<Compensation, Failure> {
        Ok(Compensation::None("looking changes nothing"))
    }
}

/// Number of rows that should be gone, by table. Tables without such rows are listed with 0.
async fn remains(rows: &dyn Rows, tenant: TenantId) -> Result<BTreeMap<&'static str, u64>, Failure> {
    let of_tenant = [("tenant_id", json!(tenant))];
    let mut found = BTreeMap::new();
    let named = tables().into_iter().filter(|(_, columns)| columns.contains_key("tenant_id"));
    for table in named.map(|(table, _)| table).filter(|table| !KEPT.contains(table) && *table != ANSWERS) {
        found.insert(table, rows.find(table, &of_tenant).await?.len() as u64);
    }
    let present = rows.find("resources", &of_tenant).await?;
    let present = present.iter().filter(|row| row["state"] != "absent" || row["name"] != row["id"]);
    found.insert("resources", present.count() as u64);
    let customers = rows.find("customers", &of_tenant).await?;
    found.insert("customers", customers.iter().filter(|row| !row["sealed"].is_null()).count() as u64);
    let tenants = rows.find("tenants", &[("id", json!(tenant))]).await?;
    let clear = |row: &&Value| ["slug", "name", "admin_sealed"].iter().any(|column| !row[*column].is_null());
    found.insert("tenants", tenants.iter().filter(clear).count() as u64);
    Ok(found)
}
