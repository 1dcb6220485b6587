//! Reads of tenants.

use std::collections::{BTreeMap, HashSet};

use sea_orm::prelude::Json;
use sea_orm::sea_query::{Condition, DynIden, Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, JoinType, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    QueryTrait as _,
};
use tenantry_model::TenantStatus;
use tenantry_provider::Kind;

use super::entity::resource;
use super::entity::tenant::{Column, Entity, Listed, Model};
use super::page::newest;
use super::reading;
use super::{ReadError, Store};
use tenantry_model::Standing;

/// Statuses of tenants that have all that they are to have.
const STANDING: [TenantStatus; 2] = [TenantStatus::Active, TenantStatus::Suspended];

impl Store {
    /// A tenant, living or gone.
    pub async fn tenant(&self, id: &str) -> Result<Option<Model>, ReadError> {
        Ok(Entity::find_by_id(id).one(self.reads()).await?)
    }

    /// How a tenant stands, and the provider of its resource of this kind, if it has one: asked at every call of the tenant's
    /// people.
    pub async fn tenant_serving(
        &self,
        id: &str,
        kind: Kind,
    ) -> Result<Option<(Standing, Option<String>)>, ReadError> {
        let standing = move |_, resource: DynIden| {
            let column = |column: resource::Column| Expr::col((resource.clone(), column));
            Condition::all()
                .add(column(resource::Column::Kind).eq(kind.as_str()))
                .add(column(resource::Column::State).ne("absent"))
        };
        let resources = Entity::belongs_to(resource::Entity)
            .from(Column::Id)
            .to(resource::Column::TenantId)
            .on_condition(standing)
            .into();
        let query = Entity::find_by_id(id)
            .join(JoinType::LeftJoin, resources)
            .select_only()
            .column(Column::Status)
            .column(Column::Suspensions)
            .column(resource::Column::Provider)
            .order_by_asc(resource::Column::Id);
        let found: Option<(String, Json, Option<String>)> = query.into_tuple().one(self.reads()).await?;
        found
            .map(|(status, suspensions, provider)| Ok((standing_of(&status, suspensions)?, provider)))
            .transpose()
    }

    /// A tenant's status alone.
    pub async fn tenant_standing(&self, id: &str) -> Result<Option<Standing>, ReadError> {
        let query = Entity::find_by_id(id).select_only().columns([Column::Status, Column::Suspensions]);
        let found: Option<(String, Json)> = query.into_tuple().one(self.reads()).await?;
        found.map(|(status, suspensions)| standing_of(&status, suspensions)).transpose()
    }

    /// Tenants whose fences do not all deny what they are to, from the oldest.
    pub async fn unfenced(&self, after: &str, limit: u64) -> Result<Vec<Model>, ReadError> {
        let query = Entity::find().filter(Expr::cust("denied IS DISTINCT FROM fenced"));
        let query = query.filter(Column::Id.gt(after));
        Ok(query.order_by_asc(Column::Id).limit(limit).all(self.reads()).await?)
    }

    /// Tenants whose fences all deny what they are to, as far as they said, from the oldest.
    pub async fn fenced(&self, after: &str, limit: u64) -> Result<Vec<Model>, ReadError> {
        let query = Entity::find().filter(Expr::cust("denied = fenced")).filter(Column::Id.gt(after));
        Ok(query.order_by_asc(Column::Id).limit(limit).all(self.reads()).await?)
    }

    /// The tenant that has or had the slug of this MAC.
    pub async fn tenant_by_slug(&self, slug_mac: &str) -> Result<Option<Model>, ReadError> {
        Ok(Entity::find().filter(Column::SlugMac.eq(slug_mac)).one(self.reads()).await?)
    }

    /// Which of these slugs, by MAC, some tenant has or had.
    pub async fn taken_slugs(&self, slug_macs: &[String]) -> Result<HashSet<String>, ReadError> {
        let query = Entity::find().select_only().column(Column::SlugMac);
        let taken = query.filter(Column::SlugMac.is_in(slug_macs)).into_tuple().all(self.reads()).await?;
        Ok(taken.into_iter().collect())
    }

    /// Whether a living tenant has the name of this MAC (S4.48).
    pub async fn is_name_taken(&self, name_mac: &str) -> Result<bool, ReadError> {
        // The second condition is the index's own, so that it is used.
        let living = Entity::find()
            .filter(Column::NameMac.eq(name_mac))
            .filter(Expr::cust("status <> 'deprovisioned'"));
        Ok(living.one(self.reads()).await?.is_some())
    }

    /// Tenants as lists show them, newest first, from the one after this id on: of one id, one status, one plan.
    pub async fn tenants(
        &self,
        only: Option<&str>,
        status: Option<TenantStatus>,
        plan: Option<&str>,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Listed>, ReadError> {
        let query = Entity::find()
            .apply_if(only, |query, id| query.filter(Column::Id.eq(id)))
            .apply_if(status, |query, status| query.filter(Column::Status.eq(status.as_str())))
            .apply_if(plan, |query, plan| query.filter(Column::Plan.eq(plan)));
        reading::some(self.reads(), newest(query, Column::Id, after, limit), &Listed::COLUMNS).await
    }

    /// Tenants that have all that they are to have, newest first, from the one after this id on: of one id, if one is given.
    pub async fn standing_tenants(
        &self,
        only: Option<&str>,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Model>, ReadError> {
        let query = Entity::find()
            .apply_if(only, |query, id| query.filter(Column::Id.eq(id)))
            .filter(Column::Status.is_in(STANDING.map(TenantStatus::as_str)));
        reading::all(self.reads(), newest(query, Column::Id, after, limit)).await
    }

    /// Those of these tenants, by id, that have all that they are to have.
    pub async fn standing(&self, ids: &[String]) -> Result<Vec<Model>, ReadError> {
        let query = Entity::find().filter(Column::Id.is_in(ids));
        let query = query.filter(Column::Status.is_in(STANDING.map(TenantStatus::as_str)));
        Ok(query.all(self.reads()).await?)
    }

    /// Which of these tenants, by id, are not gone.
    pub async fn living(&self, ids: &[String]) -> Result<HashSet<String>, ReadError> {
        let query = Entity::find().select_only().column(Column::Id).filter(Column::Id.is_in(ids));
        let query = query.filter(Column::Status.ne(TenantStatus::Deprovisioned.as_str()));
        Ok(query.into_tuple::<String>().all(self.reads()).await?.into_iter().collect())
    }

    /// How many tenants there are of each status.
    pub async fn tenant_counts(&self) -> Result<BTreeMap<String, i64>, ReadError> {
        let query =
            Entity::find().select_only().column(Column::Status).column_as(Column::Id.count(), "tenants");
        let counts: Vec<(String, i64)> =
            query.group_by(Column::Status).into_tuple().all(self.reads()).await?;
        Ok(counts.into_iter().collect())
    }
}

fn standing_of(status: &str, suspensions: Json) -> Result<Standing, ReadError> {
    let status = status.parse().map_err(ReadError)?;
    Ok(Standing { status, suspensions: serde_json::from_value(suspensions)? })
}
