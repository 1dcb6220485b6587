//! Reads of places.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};

use super::entity::place::{Column, Entity, Model};
use super::{ReadError, Store};

impl Store {
    /// Every place of a kind in a region that was ever taken.
    pub async fn places(&self, region: &str, kind: &str) -> Result<Vec<Model>, ReadError> {
        let query = Entity::find().filter(Column::Region.eq(region)).filter(Column::Kind.eq(kind));
        Ok(query.all(self.reads()).await?)
    }

    /// The places that a tenant has.
    pub async fn places_of(&self, tenant: &str) -> Result<Vec<Model>, ReadError> {
        Ok(Entity::find().filter(Column::TenantId.eq(tenant)).all(self.reads()).await?)
    }
}
