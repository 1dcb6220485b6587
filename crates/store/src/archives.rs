//! Reads of archives.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};
use tenantry_model::Timestamp;

use super::entity::archive::{Column, Entity, Model};
use super::page::newest;
use super::reading;
use super::{ReadError, Stamp, Store};

/// Archives that are swept at a time.
const BATCH: u64 = 100;

impl Store {
    /// An archive.
    pub async fn archive(&self, id: &str) -> Result<Option<Model>, ReadError> {
        Ok(Entity::find_by_id(id).one(self.reads()).await?)
    }

    /// A tenant's archives of a purpose, newest first, from the one after this id on.
    pub async fn archives(
        &self,
        tenant: &str,
        purpose: &str,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Model>, ReadError> {
        let query = Entity::find().filter(Column::TenantId.eq(tenant)).filter(Column::Purpose.eq(purpose));
        reading::all(self.reads(), newest(query, Column::Id, after, limit)).await
    }

    /// Some archives that are to go by now.
    pub async fn archives_due(&self, now: Timestamp) -> Result<Vec<Model>, ReadError> {
        let due = Entity::find().filter(Column::ExpiresAt.lte(Stamp::from(now)));
        Ok(due.order_by_asc(Column::ExpiresAt).limit(BATCH).all(self.reads()).await?)
    }
}
