//! Rows of tenants whose content was never replaced: those that were acknowledged are there, and none that was not sent.

use std::collections::BTreeSet;

use super::Ground;
use super::tenants::place;

/// Id of the project that every new tenant has.
const SEEDED: &str = "starter";

/// Rows that differ from what was acknowledged.
pub async fn check(ground: &Ground) -> Vec<String> {
    let mut faults = Vec::new();
    for tenant in ground.fleet.iter().filter(|tenant| tenant.calm && !tenant.id.is_empty()) {
        let Some((database, schema)) = place(ground, &tenant.id).await else {
            faults.push(format!("{} has no database", tenant.id));
            continue;
        };
        let rows =
            format!("SELECT id FROM \"{schema}\".projects WHERE tenant_id = '{}' AND NOT sample", tenant.id);
        let rows: BTreeSet<String> = database.rows(&rows).await.iter().map(|row| row.get(0)).collect();
        database.close().await;
        let lost = tenant.rows.difference(&rows).map(|id| format!("{} lost the row {id}", tenant.id));
        faults.extend(lost);
        let foreign = rows
            .difference(&tenant.sent)
            .filter(|id| *id != SEEDED)
            .map(|id| format!("{} has the row {id}, which it never sent", tenant.id));
        faults.extend(foreign);
    }
    faults
}
