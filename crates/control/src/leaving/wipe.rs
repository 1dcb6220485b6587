//! What the registry keeps of a tenant that is gone: ids, instants, counts, and why. Everything else that stands there in
//! clear is taken out; what stands there sealed went with the tenant's key. Which tables speak of tenants is asked of the
//! schema, so that a new one is wiped or named here, and never forgotten.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tenantry_engine::{OperationState, Signal, SignalKind};
use tenantry_model::id::{OperationId, SignalId};
use tenantry_model::{Columns, Failure, TenantId, Timestamp, Write, columns};
use tenantry_provider::Rows;

use crate::planner::StepInput;
use crate::steps::read;
use tenantry_store::{signal_row, tables};

/// Tables that name tenants and keep their rows: who it was is not in them, or is sealed under the tenant's key.
const KEPT: [&str; 8] =
    ["operations", "resources", "events", "audit", "certificates", "customers", "subscriptions", "invoices"];
/// Of these, rows are kept only where they belong to the end itself.
const ANSWERS: &str = "idempotency_keys";

/// Tables whose rows are the registry's own to delete, with their keys. Others' rows are their providers' to delete, and
/// found by the scan if they were not.
const DELETED: [(&str, &[&str]); 4] = [
    ("api_keys", &["id"]),
    ("credentials", &["operation_id", "name"]),
    ("rotations", &["operation_id", "resource_id"]),
    ("sign_in_codes", &["hash"]),
];

/// The writes that leave the tombstone. `by`: the operation that ends the tenant; requests that began it keep their answer.
pub async fn writes(
    rows: &dyn Rows,
    tenant: TenantId,
    by: OperationId,
    now: Timestamp,
) -> Result<Vec<Write>, Failure> {
    let of_tenant = [("tenant_id", json!(tenant))];
    let mut writes = vec![tombstone(rows, tenant).await?];
    for (table, key) in DELETED {
        for row in rows.find(table, &of_tenant).await? {
            writes.push(Write::delete(table, key_of(&row, key)));
        }
    }
    for row in rows.find(ANSWERS, &of_tenant).await? {
        if row["answer"]["operation_id"] != json!(by) {
            writes.push(Write::delete(ANSWERS, key_of(&row, &["principal", "key_hash"])));
        }
    }
    for row in rows.find("customers", &of_tenant).await? {
        writes.push(Write::update("customers", key_of(&row, &["id"]), columns! { "sealed": () }));
    }
    for row in rows.find("resources", &of_tenant).await? {
        let anonymous = columns! { "name": row["id"], "claim": "", "outputs": () };
        writes.push(Write::update("resources", key_of(&row, &["id"]), anonymous));
    }
    for operation in rows.find("operations", &of_tenant).await? {
        writes.extend(history(rows, operation, by, now).await?);
    }
    Ok(writes)
}

/// The tenant's own row. A slug is burnt for ever once its tenant was active, and free again if it never was.
async fn tombstone(rows: &dyn Rows, tenant: TenantId) -> Result<Write, Failure> {
    let row = rows.find("tenants", &[("id", json!(tenant))]).await?.pop();
    let row = row.ok_or_else(|| Failure::fatal("no_tenant", "the tenant's row is missing"))?;
    let (erased, none) = (format!("erased:{tenant}"), json!({}));
    let mut set = columns! {
        "slug": (), "name": (), "name_mac": erased, "labels": none, "admin_sealed": (), "last_error": (),
        "suspensions": none, "suspended_at": (), "denied": (), "fenced": (),
    };
    if row["activated_at"].is_null() {
        set.set("slug_mac", &erased);
    }
    let as_read = columns! { "status": row["status"], "version": row["version"] };
    Ok(Write::compare_and_set("tenants", columns! { "id": tenant }, as_read, set))
}

/// What an operation remembers in clear: names of things, settings, messages, reasons given by people. The steps of the
/// one that ends the tenant keep how they ended: that has no names, and becomes the certificate.
async fn history(
    rows: &dyn Rows,
    mut operation: Value,
    by: OperationId,
    now: Timestamp,
) -> Result<Vec<Write>, Failure> {
    let id = operation["id"].take();
    let of_operation = [("operation_id", id.clone())];
    let mut input = operation["input"].take();
    if let Some(sealed) = input.get_mut("sealed") {
        *sealed = json!("");
    }
    let error = without_words(operation["error"].take());
    let mut writes =
        vec![Write::update("operations", columns! { "id": id }, columns! { "input": input, "error": error })];
    for mut step in rows.find("steps", &of_operation).await? {
        let StepInput { resource, generation, act, .. } = read(&step["input"])?;
        let input = json!(StepInput { resource, generation, act, ..StepInput::default() });
        let mut set = columns! { "input": input, "error": without_words(step["error"].take()) };
        if id != json!(by) {
            set.extend(columns! { "output": (), "note": () });
        }
        writes.push(Write::update("steps", key_of(&step, &["operation_id", "key"]), set));
    }
    let signals = rows.find("signals", &of_operation).await?;
    writes.extend(signals.iter().map(|row| Write::delete("signals", key_of(row, &["id"]))));
    let state: OperationState = read(&operation["state"])?;
    if id != json!(by) && !state.is_final() {
        // One that was stuck, such as a notice that could not be sent: nothing of it can be done any more.
        let kind = SignalKind::Supersede;
        let signal = Signal { id: SignalId::new(), kind, by: by.to_string(), at: now };
        writes.push(signal_row(read(&id)?, &signal));
    }
    Ok(writes)
}

/// A failure without its message, which may quote a name.
fn without_words(mut failure: Value) -> Value {
    if let Some(message) = failure.get_mut("message") {
        *message = json!("");
    }
    failure
}

/// How many rows that should be gone are still there, by table. Tables without any are in it too: they were looked at.
pub async fn remains(rows: &dyn Rows, tenant: TenantId) -> Result<BTreeMap<&'static str, u64>, Failure> {
    let of_tenant = [("tenant_id", json!(tenant))];
    let mut found = BTreeMap::new();
    let named = tables().into_iter().filter(|(_, columns)| columns.contains_key("tenant_id"));
    for table in named.map(|(table, _)| table).filter(|table| !KEPT.contains(table) && *table != ANSWERS) {
        found.insert(table, rows.find(table, &of_tenant).await?.len() as u64);
    }
    let standing = rows.find("resources", &of_tenant).await?;
    let standing = standing.iter().filter(|row| row["state"] != "absent" || row["name"] != row["id"]);
    found.insert("resources", standing.count() as u64);
    let customers = rows.find("customers", &of_tenant).await?;
    found.insert("customers", customers.iter().filter(|row| !row["sealed"].is_null()).count() as u64);
    let tenants = rows.find("tenants", &[("id", json!(tenant))]).await?;
    let clear = |row: &&Value| ["slug", "name", "admin_sealed"].iter().any(|column| !row[*column].is_null());
    found.insert("tenants", tenants.iter().filter(clear).count() as u64);
    Ok(found)
}

fn key_of(row: &Value, columns: &[&'static str]) -> Columns {
    let mut key = Columns::default();
    columns.iter().for_each(|column| key.set(column, &row[*column]));
    key
}
