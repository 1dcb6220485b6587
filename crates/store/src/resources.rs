//! Reads of resources.

use std::time::Duration;

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, Order, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use tenantry_model::Timestamp;

use super::entity::resource::{Column, Entity, Model};
use super::{ReadError, Store};

/// Rows that are read at a time.
const PAGE: u64 = 1_000;
/// A day, more than any offset.
const DAY: Duration = Duration::from_secs(86_400);

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

    /// Resources that say of themselves that they are to be renewed by now (`renew_at` in their outputs): the tenant and the
    /// step. In the order of their times, as they say them.
    pub async fn resources_due(&self, now: Timestamp) -> Result<Vec<(String, String)>, ReadError> {
        let renew_at = || Expr::cust("outputs ->> 'renew_at'");
        // Texts are compared, and an offset of its own changes what one means by less than a day.
        let soon = (now + DAY).to_string();
        let mut due = Vec::new();
        let mut after = (String::new(), String::new());
        loop {
            let (at, id) = &after;
            let page = Entity::find()
                .select_only()
                .column_as(renew_at(), "renew_at")
                .columns([Column::Id, Column::TenantId, Column::StepKey])
                // The index's own condition, so that it is used.
                .filter(Expr::cust("kind = 'certificate' AND state = 'present'"))
                .filter(renew_at().lte(&*soon))
                .filter(renew_at().gte(&**at))
                .filter(renew_at().gt(&**at).or(Column::Id.gt(&**id)))
                .order_by(renew_at(), Order::Asc)
                .order_by_asc(Column::Id)
                .limit(PAGE);
            let page: Vec<(String, String, String, String)> = page.into_tuple().all(self.reads()).await?;
            let Some((at, id, ..)) = page.last() else { return Ok(due) };
            after = (at.clone(), id.clone());
            let is_due = |at: &str| at.parse::<Timestamp>().is_ok_and(|at| at <= now);
            let page = page.into_iter().filter(|(at, ..)| is_due(at));
            due.extend(page.map(|(_, _, tenant, step)| (tenant, step)));
        }
    }

    /// A tenant's resources, those that are gone included, in the order in which they were intended.
    pub async fn resources(&self, tenant: &str) -> Result<Vec<Model>, ReadError> {
        let query = Entity::find().filter(Column::TenantId.eq(tenant));
        Ok(query.order_by_asc(Column::Id).all(self.reads()).await?)
    }
}
