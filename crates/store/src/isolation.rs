//! Reads for the isolation check: reports, and which tenants are checked when nobody names them.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};

use super::entity::{isolation_report, resource};
use super::page::newest;
use super::reading;
use super::{ReadError, Store};

impl Store {
    /// A report.
    pub async fn isolation_report(&self, id: &str) -> Result<Option<isolation_report::Model>, ReadError> {
        Ok(isolation_report::Entity::find_by_id(id).one(self.reads()).await?)
    }

    /// Reports, newest first, from the one after this id on.
    pub async fn isolation_reports(
        &self,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<isolation_report::Model>, ReadError> {
        let query = isolation_report::Entity::find();
        reading::all(self.reads(), newest(query, isolation_report::Column::Id, after, limit)).await
    }

    /// Tenants whose database this provider made: the oldest and the newest, up to `each` of both.
    pub async fn tenants_at_both_ends(&self, provider: &str, each: u64) -> Result<Vec<String>, ReadError> {
        let query = resource::Entity::find()
            .select_only()
            .column(resource::Column::TenantId)
            // The index's own condition, so that it is used.
            .filter(Expr::cust("kind = 'database' AND state = 'present'"))
            .filter(resource::Column::Provider.eq(provider));
        let oldest = query.clone().order_by_asc(resource::Column::Id).limit(each);
        let newest = query.order_by_desc(resource::Column::Id).limit(each);
        let mut tenants: Vec<String> = oldest.into_tuple().all(self.reads()).await?;
        tenants.extend(newest.into_tuple::<String>().all(self.reads()).await?);
        tenants.sort_unstable();
        tenants.dedup();
        Ok(tenants)
    }
}
