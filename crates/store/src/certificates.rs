//! Reads of certificates of deletion.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};

use super::entity::certificate::{Column, Entity, Model};
use super::{ReadError, Store};

impl Store {
    /// The last certificate of the chain.
    pub async fn last_certificate(&self) -> Result<Option<Model>, ReadError> {
        Ok(Entity::find().order_by_desc(Column::Seq).one(self.reads()).await?)
    }

    /// A tenant's latest certificate.
    pub async fn certificate_of(&self, tenant: &str) -> Result<Option<Model>, ReadError> {
        let query = Entity::find().filter(Column::TenantId.eq(tenant));
        Ok(query.order_by_desc(Column::Seq).one(self.reads()).await?)
    }
}
