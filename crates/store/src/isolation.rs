//! Reads for the isolation check: reports, and which tenants are checked when the caller names none.

use super::entity::isolation_report::Model;
use super::query::Query;
use super::{ReadError, Store};

impl Store {
    /// A report.
    pub async fn isolation_report(&self, id: &str) -> Result<Option<Model>, ReadError> {
        self.reads().one(Query::of::<Model>().filter("id = ?", id)).await
    }

    /// Reports, newest first, from the one after this id on.
    pub async fn isolation_reports(&self, after: Option<&str>, limit: u64) -> Result<Vec<Model>, ReadError> {
        self.reads().all(Query::of::<Model>().newest(after, limit)).await
    }

    /// Tenants whose database this provider made: the oldest and the newest, up to `each` of both.
    pub async fn tenants_at_both_ends(&self, provider: &str, each: u64) -> Result<Vec<String>, ReadError> {
        let mut tenants = Vec::new();
        for order in ["ORDER BY id", "ORDER BY id DESC"] {
            // The first condition is the index's own, so that it is used.
            let query = Query::new("SELECT tenant_id FROM resources")
                .only("kind = 'database' AND state = 'present'")
                .filter("provider = ?", provider);
            tenants.extend(self.reads().column::<String>(query.sql(order).limit(each)).await?);
        }
        tenants.sort_unstable();
        tenants.dedup();
        Ok(tenants)
    }
}
