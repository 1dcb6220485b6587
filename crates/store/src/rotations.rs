//! Reads of former secrets that are still good.

use tenantry_model::Timestamp;

use super::entity::rotation::Model;
use super::query::Query;
use super::{ReadError, Store};

/// Secrets that are revoked at a time.
const BATCH: u64 = 100;

impl Store {
    /// A tenant's.
    pub async fn rotations(&self, tenant: &str) -> Result<Vec<Model>, ReadError> {
        self.reads().all(Query::of::<Model>().filter("tenant_id = ?", tenant)).await
    }

    /// Some of those whose time is over by now, by operation and resource, from the one after these on.
    pub async fn rotations_due(
        &self,
        now: Timestamp,
        after: Option<&(String, String)>,
    ) -> Result<Vec<Model>, ReadError> {
        let mut due = Query::of::<Model>().filter("until <= ?", now);
        if let Some((operation, resource)) = after {
            due = due.only("(operation_id, resource_id) > (?, ?)");
            due = due.value(operation.as_str()).value(resource.as_str());
        }
        self.reads().all(due.sql("ORDER BY operation_id, resource_id").limit(BATCH)).await
    }
}
