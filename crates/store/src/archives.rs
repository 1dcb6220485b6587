//! Reads of archives.

use tenantry_model::Timestamp;

use super::entity::archive::Model;
use super::query::Query;
use super::{ReadError, Store};

/// Archives that are deleted at a time.
const BATCH: u64 = 100;

impl Store {
    /// An archive.
    pub async fn archive(&self, id: &str) -> Result<Option<Model>, ReadError> {
        self.reads().one(Query::of::<Model>().filter("id = ?", id)).await
    }

    /// A tenant's archives of a purpose, newest first, from the one after this id on.
    pub async fn archives(
        &self,
        tenant: &str,
        purpose: &str,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Model>, ReadError> {
        let query = Query::of::<Model>().filter("tenant_id = ?", tenant).filter("purpose = ?", purpose);
        self.reads().all(query.newest(after, limit)).await
    }

    /// Some archives whose time is over by now.
    pub async fn archives_due(&self, now: Timestamp) -> Result<Vec<Model>, ReadError> {
        let due = Query::of::<Model>().filter("expires_at <= ?", now);
        self.reads().all(due.sql("ORDER BY expires_at").limit(BATCH)).await
    }
}
