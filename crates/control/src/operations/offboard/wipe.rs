//! Wipes the registry: keeps of a deleted tenant only ids, times, counts and the reason. Sealed columns become unreadable with
//! the tenant's key. The schema says which tables hold tenants' rows, so that a new table is wiped or listed here.

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_engine::{Attempt, Done, OperationState, Signal, SignalKind};
use tenantry_model::id::{OperationId, SignalId};
use tenantry_model::{Columns, Failure, TenantId, Timestamp, Write, columns};
use tenantry_provider::Rows;
use tenantry_store::signal_row;

use super::plan::WIPE;
use crate::access::idempotency::{FORGOTTEN, is_creation};
use crate::ledger::{StepInput, read, tenant_id};
use crate::operations::{Action, Compensation, ProviderSteps, irreversible, writes};

/// Tables that keep rows of deleted tenants. Personal data in them is sealed under the tenant's key.
pub(super) const KEPT: [&str; 8] =
    ["operations", "resources", "events", "audit", "certificates", "customers", "subscriptions", "invoices"];
/// Table of which only the rows of the tenant's creation and of the deleting operation are kept.
pub(super) const ANSWERS: &str = "idempotency_keys";

/// Tables whose rows are deleted here, with their key columns. Providers delete the rows of other tables; the scan finds rows
/// that they left.
const DELETED: [(&str, &[&str]); 6] = [
    ("api_keys", &["id"]),
    ("credentials", &["operation_id", "name"]),
    // One may be written by a request that began before the deletion, after the provider of members has deleted the others.
    ("invitations", &["id"]),
    ("rotations", &["operation_id", "resource_id"]),
    ("sessions", &["id"]),
    ("sign_in_codes", &["hash"]),
];

/// Anonymises the tenant's rows, and deletes those that no record needs.
pub(crate) struct WipeRegistry;

#[async_trait]
impl Action for WipeRegistry {
    fn kind(&self) -> &'static str {
        WIPE
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let tenant = tenant_id(&attempt.operation)?;
        let mut effects = anonymize(&*steps.rows, tenant, attempt.operation.id, attempt.now).await?;
        effects.extend(steps.slots.release(tenant).await?);
        Ok(writes(effects))
    }

    async fn compensate(&self, _: &ProviderSteps, attempt: &Attempt) -> Result<Compensation, Failure> {
        Err(irreversible(&attempt.step))
    }
}

/// The writes that leave a tombstone. `by`: the deleting operation; idempotency keys of its requests keep their answer. That
/// of the tenant's creation keeps it too, so that a repeated request does not create a second tenant; the hash of that
/// request is deleted, because the request names people.
async fn anonymize(
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
        let (answer, key) = (&row["answer"], key_of(&row, &["principal", "key_hash"]));
        if answer["operation_id"] == json!(by) {
            continue;
        }
        writes.push(match is_creation(answer) {
            true => Write::update(ANSWERS, key, columns! { "body_hash": FORGOTTEN }),
            false => Write::delete(ANSWERS, key),
        });
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

/// The tenant's own row. The slug of a tenant that was active is never free again.
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

/// Removes what an operation keeps in clear: names, settings, messages, reasons. The steps of the deleting operation keep
/// their outputs, which hold no names and become the certificate.
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
        // An operation that is stuck, such as a notice that could not be sent, cannot go on without its input.
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

fn key_of(row: &Value, columns: &[&'static str]) -> Columns {
    let mut key = Columns::default();
    columns.iter().for_each(|column| key.set(column, &row[*column]));
    key
}
