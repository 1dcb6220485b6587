//! Reads of the slots of capacity (the table `slots`).

use super::entity::slot::Model;
use super::query::Query;
use super::{ReadError, Store};

impl Store {
    /// Every slot of a kind in a region that was ever taken.
    pub async fn slots(&self, region: &str, kind: &str) -> Result<Vec<Model>, ReadError> {
        self.reads().all(Query::of::<Model>().filter("region = ?", region).filter("kind = ?", kind)).await
    }

    /// The slots that a tenant has.
    pub async fn slots_of(&self, tenant: &str) -> Result<Vec<Model>, ReadError> {
        self.reads().all(Query::of::<Model>().filter("tenant_id = ?", tenant)).await
    }
}
