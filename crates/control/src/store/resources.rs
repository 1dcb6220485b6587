//! Reads of resources.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};

use super::entity::resource::{Column, Entity, Model};
use super::{ReadError, Store};

impl Store {
    /// A resource, standing or gone.
    pub async fn resource(&self, id: &str) -> Result<Option<Model>, ReadError> {
        Ok(Entity::find_by_id(id).one(self.reads()).await?)
    }

    /// A tenant's resources, those that are gone included, in the order in which they were intended.
    pub async fn resources(&self, tenant: &str) -> Result<Vec<Model>, ReadError> {
        let query = Entity::find().filter(Column::TenantId.eq(tenant));
        Ok(query.order_by_asc(Column::Id).all(self.reads()).await?)
    }
}
