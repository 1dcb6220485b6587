//! Reads of events: in the order of their numbers, which is the order in which they became true, or by tenant.

use super::entity::event::Model;
use super::query::Query;
use super::{ReadError, Store};

impl Store {
    /// Sealed events with a number above this one, in order.
    pub async fn events_after(&self, seq: i64, limit: u64) -> Result<Vec<Model>, ReadError> {
        let query = Query::of::<Model>().filter("seq > ?", seq);
        self.reads().all(query.sql("ORDER BY seq").limit(limit)).await
    }

    /// The same, of one tenant.
    pub async fn events_of(&self, tenant: &str, seq: i64, limit: u64) -> Result<Vec<Model>, ReadError> {
        let query = Query::of::<Model>().filter("tenant_id = ?", tenant).filter("seq > ?", seq);
        self.reads().all(query.sql("ORDER BY seq").limit(limit)).await
    }

    /// Sequence number of the newest sealed event; 0 without one.
    pub async fn last_event_seq(&self) -> Result<i64, ReadError> {
        let last: Option<(Option<i64>,)> =
            self.reads().one(Query::new("SELECT max(seq) FROM events")).await?;
        Ok(last.and_then(|(seq,)| seq).unwrap_or(0))
    }
}
