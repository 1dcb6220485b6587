//! Clones of a tenant, their clones, and so on. They keep copies of its rows after it is deleted, so the operation and the
//! certificate name them.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_model::{Failure, TenantId, TenantStatus, Timestamp};
use tenantry_provider::{Rows, Sealer};

use super::NAME;
use crate::ledger::{OperationKind, StepInput, read};
use crate::operations::clone::Cloning;
use crate::templates::built_in::CLONE;

/// A tenant with copies of another tenant's rows, cloned from it or from a clone of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LivingClone {
    /// Id of the clone.
    pub tenant_id: TenantId,
    /// HMAC of the clone's slug.
    pub name: String,
    /// Tenant that it was cloned from.
    pub cloned_from: TenantId,
    /// Time at which the rows were copied.
    pub cloned_at: Timestamp,
    /// Columns that were masked, as `TABLE.COLUMN`; all others were copied unchanged.
    pub masked: BTreeSet<String>,
    /// Whether files were copied, to which masks do not apply.
    pub files: bool,
}

/// Tenants that exist and have copies of this tenant's rows, directly or through other clones.
pub(super) async fn living(
    rows: &dyn Rows,
    sealer: &dyn Sealer,
    tenant: TenantId,
) -> Result<Vec<LivingClone>, Failure> {
    let mut found = Vec::new();
    // Tenants whose clones are to be found, with the columns that were masked on the way to them.
    let mut open = vec![(tenant, BTreeSet::new())];
    while let Some((cloned_from, before)) = open.pop() {
        for row in rows.find("tenants", &[("cloned_from", json!(cloned_from))]).await? {
            let tenant_id = read(&row["id"])?;
            // Clones of a deleted clone may still have the rows; its own masks are not on record any more.
            let mut masked = before.clone();
            if let Some((cloning, cloned_at)) = taken_over(rows, &row).await? {
                let columns = cloning.masks.iter().map(|mask| format!("{}.{}", mask.table, mask.column));
                masked.extend(columns);
                let name = sealer.mac(NAME, row["slug"].as_str().unwrap_or_default());
                let (masked, files) = (masked.clone(), cloning.files);
                found.push(LivingClone { tenant_id, name, cloned_from, cloned_at, masked, files });
            }
            open.push((tenant_id, masked));
        }
    }
    Ok(found)
}

/// Source and time of a clone's rows; none if it has no rows of the source.
async fn taken_over(rows: &dyn Rows, clone: &Value) -> Result<Option<(Cloning, Timestamp)>, Failure> {
    let status: TenantStatus = read(&clone["status"])?;
    if matches!(status, TenantStatus::Pending | TenantStatus::Deprovisioned) {
        return Ok(None);
    }
    for onboarding in rows.find("operations", &[("tenant_id", clone["id"].clone())]).await?.iter().rev() {
        let word = onboarding["kind"].as_str().unwrap_or_default();
        if OperationKind::read(word, !onboarding["parent_id"].is_null()) != OperationKind::Onboard {
            continue;
        }
        let step = [("operation_id", onboarding["id"].clone()), ("key", json!(CLONE))];
        let Some(step) = rows.find("steps", &step).await?.pop() else { continue };
        let Some(at) = read(&step["started_at"])? else { continue };
        let StepInput { settings, .. } = read(&step["input"])?;
        return Ok(Some((read(&settings)?, at)));
    }
    Ok(None)
}
