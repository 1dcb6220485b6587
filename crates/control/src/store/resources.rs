//! Reads of resources.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};
use serde::Deserialize as _;
use tenantry_model::Timestamp;
use tenantry_providers::Kind;

use super::entity::resource::{Column, Entity, Model};
use super::{ReadError, Store};

/// Rows that are read at a time.
const PAGE: u64 = 1_000;

impl Store {
    /// A resource, standing or gone.
    pub async fn resource(&self, id: &str) -> Result<Option<Model>, ReadError> {
        Ok(Entity::find_by_id(id).one(self.reads()).await?)
    }

    /// All resources that a tenant has had, standing or gone.
    pub async fn resources_of(&self, tenant: &str) -> Result<Vec<Model>, ReadError> {
        let query = Entity::find().filter(Column::TenantId.eq(tenant));
        Ok(query.order_by_asc(Column::Id).all(self.reads()).await?)
    }

    /// What these tenants have by now, in the order in which it was intended. One query.
    pub async fn present(&self, tenants: &[String]) -> Result<Vec<Model>, ReadError> {
        let query =
            Entity::find().filter(Column::TenantId.is_in(tenants)).filter(Column::State.eq("present"));
        Ok(query.order_by_asc(Column::Id).all(self.reads()).await?)
    }

    /// Resources of active tenants that say of themselves that they are to be renewed by now (`renew_at` in their outputs): the
    /// tenant and the step. Reads all of the kinds that can.
    pub async fn resources_due(&self, now: Timestamp) -> Result<Vec<(String, String)>, ReadError> {
        let mut due = Vec::new();
        let mut after = String::new();
        loop {
            let page = Entity::find()
                .filter(Column::Kind.eq(Kind::Certificate.as_str()))
                .filter(Column::State.eq("present"))
                .filter(Column::Id.gt(&*after));
            let page = page.order_by_asc(Column::Id).limit(PAGE).all(self.reads()).await?;
            let Some(last) = page.last() else { return Ok(due) };
            last.id.clone_into(&mut after);
            let is_due = |row: &Model| {
                let at = row.outputs.get("renew_at").and_then(|at| Timestamp::deserialize(at).ok());
                at.is_some_and(|at| at <= now)
            };
            due.extend(page.into_iter().filter(is_due).map(|row| (row.tenant_id, row.step_key)));
        }
    }

    /// A tenant's resources, those that are gone included, in the order in which they were intended.
    pub async fn resources(&self, tenant: &str) -> Result<Vec<Model>, ReadError> {
        let query = Entity::find().filter(Column::TenantId.eq(tenant));
        Ok(query.order_by_asc(Column::Id).all(self.reads()).await?)
    }
}
