//! Reads of resources.

use std::time::Duration;

use tenantry_model::Timestamp;

use super::entity::resource::Model;
use super::query::Query;
use super::{ReadError, Store};

/// Rows that are read at a time.
const PAGE: u64 = 1_000;
/// A day, more than any offset.
const DAY: Duration = Duration::from_secs(86_400);

impl Store {
    /// Returns a resource, present or deleted.
    pub async fn resource(&self, id: &str) -> Result<Option<Model>, ReadError> {
        self.reads().one(Query::of::<Model>().filter("id = ?", id)).await
    }

    /// Returns all resources that a tenant has or had.
    pub async fn resources_of(&self, tenant: &str) -> Result<Vec<Model>, ReadError> {
        self.reads().all(Query::of::<Model>().filter("tenant_id = ?", tenant).sql("ORDER BY id")).await
    }

    /// Returns the present resources of these tenants, in the order of their planning. Runs one query.
    pub async fn present(&self, tenants: &[String]) -> Result<Vec<Model>, ReadError> {
        let query = Query::of::<Model>().filter("tenant_id IN ?", tenants).only("state = 'present'");
        self.reads().all(query.sql("ORDER BY id")).await
    }

    /// Returns tenant and step of each resource whose outputs have a `renew_at` that has passed, ordered by the text of
    /// `renew_at`.
    pub async fn resources_due(&self, now: Timestamp) -> Result<Vec<(String, String)>, ReadError> {
        // The query compares texts. A UTC offset in a text shifts it by less than a day, so select a day more.
        let soon = (now + DAY).to_string();
        let mut due = Vec::new();
        let mut after = (String::new(), String::new());
        loop {
            let (at, id) = &after;
            // The first condition is that of the partial index, so that the database uses it.
            let page = Query::new("SELECT outputs ->> 'renew_at', id, tenant_id, step_key FROM resources")
                .only("kind = 'certificate' AND state = 'present'")
                .filter("(outputs ->> 'renew_at') <= ?", soon.as_str())
                .filter("(outputs ->> 'renew_at') >= ?", at.as_str())
                .only("((outputs ->> 'renew_at') > ? OR id > ?)")
                .value(at.as_str())
                .value(id.as_str())
                .sql("ORDER BY (outputs ->> 'renew_at'), id")
                .limit(PAGE);
            let page: Vec<(String, String, String, String)> = self.reads().all(page).await?;
            let Some((at, id, ..)) = page.last() else { return Ok(due) };
            after = (at.clone(), id.clone());
            let is_due = |at: &str| at.parse::<Timestamp>().is_ok_and(|at| at <= now);
            let page = page.into_iter().filter(|(at, ..)| is_due(at));
            due.extend(page.map(|(_, _, tenant, step)| (tenant, step)));
        }
    }

    /// A tenant's resources, those that are gone included, in the order in which they were intended.
    pub async fn resources(&self, tenant: &str) -> Result<Vec<Model>, ReadError> {
        self.resources_of(tenant).await
    }
}
