//! Reads of events: in the order of their numbers, which is the order in which they became true, or by tenant.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};

use super::entity::event::{Column, Entity, Model};
use super::{ReadError, Store};

impl Store {
    /// Sealed events with a number above this one, in order.
    pub async fn events_after(&self, seq: i64, limit: u64) -> Result<Vec<Model>, ReadError> {
        let query = Entity::find().filter(Column::Seq.gt(seq));
        Ok(query.order_by_asc(Column::Seq).limit(limit).all(self.reads()).await?)
    }

    /// The same, of one tenant.
    pub async fn events_of(&self, tenant: &str, seq: i64, limit: u64) -> Result<Vec<Model>, ReadError> {
        let query = Entity::find().filter(Column::TenantId.eq(tenant)).filter(Column::Seq.gt(seq));
        Ok(query.order_by_asc(Column::Seq).limit(limit).all(self.reads()).await?)
    }

    /// Sequence number of the newest sealed event; 0 without one.
    pub async fn last_event_seq(&self) -> Result<i64, ReadError> {
        let query = Entity::find().select_only().column_as(Column::Seq.max(), "seq");
        let last: Option<Option<i64>> = query.into_tuple().one(self.reads()).await?;
        Ok(last.flatten().unwrap_or(0))
    }
}
