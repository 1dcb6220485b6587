//! Reads of certificates of deletion.

use super::entity::certificate::Model;
use super::query::Query;
use super::{ReadError, Store};

impl Store {
    /// The last certificate of the chain.
    pub async fn last_certificate(&self) -> Result<Option<Model>, ReadError> {
        self.reads().one(Query::of::<Model>().sql("ORDER BY seq DESC")).await
    }

    /// A tenant's latest certificate.
    pub async fn certificate_of(&self, tenant: &str) -> Result<Option<Model>, ReadError> {
        let query = Query::of::<Model>().filter("tenant_id = ?", tenant);
        self.reads().one(query.sql("ORDER BY seq DESC")).await
    }
}
