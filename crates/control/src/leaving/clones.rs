//! Who else has what a tenant had: its clones, their clones, and so on, as far as they live. What is erased lives on there,
//! masked or not, which has to be said where an end begins and where it is proven. Nothing is deleted here.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_model::{Failure, TenantId, TenantStatus, Timestamp};
use tenantry_provider::{Rows, Sealer};

use super::steps::NAME;
use crate::clones::{CLONE, Cloning};
use crate::planner::StepInput;
use crate::steps::{ONBOARD, read};

/// A tenant with copies of another one's rows, by the tenant itself or by a clone of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LivingClone {
    /// Its id.
    pub tenant_id: TenantId,
    /// HMAC of its slug.
    pub name: String,
    /// The tenant that it was cloned from.
    pub cloned_from: TenantId,
    /// Since when it has the rows.
    pub cloned_at: Timestamp,
    /// Columns that were masked on the way, as `TABLE.COLUMN`; all others came as they were.
    pub masked: BTreeSet<String>,
    /// Whether files came along, which nothing masks.
    pub files: bool,
}

/// The tenants that live and have copies of this one's rows, however many clones lie in between.
pub async fn living(
    rows: &dyn Rows,
    sealer: &dyn Sealer,
    tenant: TenantId,
) -> Result<Vec<LivingClone>, Failure> {
    let mut found = Vec::new();
    // Tenants whose clones are to be looked for, with what was masked on the way to them.
    let mut open = vec![(tenant, BTreeSet::new())];
    while let Some((cloned_from, before)) = open.pop() {
        for row in rows.find("tenants", &[("cloned_from", json!(cloned_from))]).await? {
            let tenant_id = read(&row["id"])?;
            // What one had that is gone, its clones may still have; how it was masked is forgotten then.
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

/// How a clone that lives came to its rows, and when; none if it has none, or none any more.
async fn taken_over(rows: &dyn Rows, clone: &Value) -> Result<Option<(Cloning, Timestamp)>, Failure> {
    let status: TenantStatus = read(&clone["status"])?;
    if matches!(status, TenantStatus::Pending | TenantStatus::Deprovisioned) {
        return Ok(None);
    }
    for onboarding in rows.find("operations", &[("tenant_id", clone["id"].clone())]).await?.iter().rev() {
        if onboarding["kind"] != ONBOARD {
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
