//! Reads of former secrets that are still good.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use tenantry_model::Timestamp;

use super::entity::rotation::{Column, Entity, Model};
use super::{ReadError, Stamp, Store};

/// Secrets that are swept at a time.
const BATCH: u64 = 100;

impl Store {
    /// A tenant's.
    pub async fn rotations(&self, tenant: &str) -> Result<Vec<Model>, ReadError> {
        Ok(Entity::find().filter(Column::TenantId.eq(tenant)).all(self.reads()).await?)
    }

    /// Some of those whose time is over by now, by operation and resource, from the one after these on.
    pub async fn rotations_due(
        &self,
        now: Timestamp,
        after: Option<&(String, String)>,
    ) -> Result<Vec<Model>, ReadError> {
        let due = Entity::find().filter(Column::Until.lte(Stamp::from(now)));
        let mut due = due.cursor_by((Column::OperationId, Column::ResourceId));
        if let Some(after) = after {
            due.after(after.clone());
        }
        Ok(due.first(BATCH).all(self.reads()).await?)
    }
}
