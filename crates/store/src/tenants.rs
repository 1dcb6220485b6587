//! Reads of tenants.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value as Json;
use tenantry_model::{AccessStatus, TenantStatus};
use tenantry_provider::Kind;

use super::entity::tenant::{Listed, Model};
use super::query::Query;
use super::{ReadError, Store};

/// Condition for completely onboarded tenants.
const STANDING: &str = "status IN ('active', 'suspended')";

impl Store {
    /// Returns a tenant, existing or deleted.
    pub async fn tenant(&self, id: &str) -> Result<Option<Model>, ReadError> {
        self.reads().one(Query::of::<Model>().filter("id = ?", id)).await
    }

    /// Returns a tenant's status and suspensions, and the provider of its resource of this kind, if it has one. Runs at
    /// every request of the tenant's clients.
    pub async fn tenant_serving(
        &self,
        id: &str,
        kind: Kind,
    ) -> Result<Option<(AccessStatus, Option<String>)>, ReadError> {
        let query = Query::new(
            "SELECT t.status, t.suspensions, r.provider FROM tenants t
             LEFT JOIN resources r ON r.tenant_id = t.id AND r.kind = ? AND r.state <> 'absent'",
        );
        let query = query.value(kind.as_str()).filter("t.id = ?", id).sql("ORDER BY r.id");
        let found: Option<(String, Json, Option<String>)> = self.reads().one(query).await?;
        found
            .map(|(status, suspensions, provider)| Ok((access_status_of(&status, suspensions)?, provider)))
            .transpose()
    }

    /// Returns a tenant's status and suspensions.
    pub async fn access_status(&self, id: &str) -> Result<Option<AccessStatus>, ReadError> {
        let query = Query::new("SELECT status, suspensions FROM tenants").filter("id = ?", id);
        let found: Option<(String, Json)> = self.reads().one(query).await?;
        found.map(|(status, suspensions)| access_status_of(&status, suspensions)).transpose()
    }

    /// Returns tenants of which a fence has not acknowledged the desired mode, oldest first, after the id `after`.
    pub async fn unfenced(&self, after: &str, limit: u64) -> Result<Vec<Model>, ReadError> {
        let query = Query::of::<Model>().only("denied IS DISTINCT FROM fenced").filter("id > ?", after);
        self.reads().all(query.sql("ORDER BY id").limit(limit)).await
    }

    /// Returns tenants whose fences have all acknowledged a mode that denies access, oldest first, after the id `after`.
    pub async fn fenced(&self, after: &str, limit: u64) -> Result<Vec<Model>, ReadError> {
        let query = Query::of::<Model>().only("denied = fenced").filter("id > ?", after);
        self.reads().all(query.sql("ORDER BY id").limit(limit)).await
    }

    /// Returns the tenant, existing or deleted, whose slug has this MAC.
    pub async fn tenant_by_slug(&self, slug_mac: &str) -> Result<Option<Model>, ReadError> {
        self.reads().one(Query::of::<Model>().filter("slug_mac = ?", slug_mac)).await
    }

    /// Selects, of these MACs, those of slugs that an existing or deleted tenant has.
    pub async fn taken_slugs(&self, slug_macs: &[String]) -> Result<HashSet<String>, ReadError> {
        let query = Query::new("SELECT slug_mac FROM tenants").filter("slug_mac IN ?", slug_macs);
        Ok(self.reads().column(query).await?.into_iter().collect())
    }

    /// Whether an existing tenant's name has this MAC.
    pub async fn is_name_taken(&self, name_mac: &str) -> Result<bool, ReadError> {
        // The second condition is that of the partial index, so that the database uses it.
        let living = Query::new("SELECT id FROM tenants").filter("name_mac = ?", name_mac);
        let living: Option<(String,)> = self.reads().one(living.only("status <> 'deprovisioned'")).await?;
        Ok(living.is_some())
    }

    /// Returns a page of tenants for a list, newest first, after the id `after`; optionally only those with one id, one
    /// status or one plan.
    pub async fn tenants(
        &self,
        only: Option<&str>,
        status: Option<TenantStatus>,
        plan: Option<&str>,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Listed>, ReadError> {
        let query = Query::of::<Listed>()
            .filter_if("id = ?", only)
            .filter_if("status = ?", status.map(TenantStatus::as_str))
            .filter_if("plan = ?", plan);
        self.reads().all(query.newest(after, limit)).await
    }

    /// Returns a page of completely onboarded tenants, newest first, after the id `after`; optionally only the one with
    /// the id `only`.
    pub async fn standing_tenants(
        &self,
        only: Option<&str>,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Model>, ReadError> {
        let query = Query::of::<Model>().filter_if("id = ?", only).only(STANDING);
        self.reads().all(query.newest(after, limit)).await
    }

    /// Selects, of the tenants with these ids, those that are active or suspended.
    pub async fn standing(&self, ids: &[String]) -> Result<Vec<Model>, ReadError> {
        self.reads().all(Query::of::<Model>().filter("id IN ?", ids).only(STANDING)).await
    }

    /// Selects, of these ids of tenants, those that are not deprovisioned.
    pub async fn living(&self, ids: &[String]) -> Result<HashSet<String>, ReadError> {
        let query = Query::new("SELECT id FROM tenants").filter("id IN ?", ids);
        Ok(self.reads().column(query.only("status <> 'deprovisioned'")).await?.into_iter().collect())
    }

    /// Returns the number of tenants of each status.
    pub async fn tenant_counts(&self) -> Result<BTreeMap<String, i64>, ReadError> {
        let query = Query::new("SELECT status, count(*) FROM tenants GROUP BY status");
        let counts: Vec<(String, i64)> = self.reads().all(query).await?;
        Ok(counts.into_iter().collect())
    }
}

fn access_status_of(status: &str, suspensions: Json) -> Result<AccessStatus, ReadError> {
    let status = status.parse().map_err(ReadError)?;
    Ok(AccessStatus { status, suspensions: serde_json::from_value(suspensions)? })
}
