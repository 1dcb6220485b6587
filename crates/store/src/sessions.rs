//! Reads of members' sessions. Writes are those of the control plane.

use super::entity::session;
use super::query::Query;
use super::{ReadError, Store};

impl Store {
    /// The session with this id, also if it has ended.
    pub async fn session(&self, id: &str) -> Result<Option<session::Model>, ReadError> {
        self.reads().one(Query::of::<session::Model>().filter("id = ?", id)).await
    }

    /// The session to whose refresh tokens this hash belongs, also if it has ended.
    pub async fn session_of_family(&self, family_hash: &str) -> Result<Option<session::Model>, ReadError> {
        self.reads().one(Query::of::<session::Model>().filter("family_hash = ?", family_hash)).await
    }

    /// Up to `limit` sessions of a tenant, or of one of its members, newest first, after the one with the id `after`.
    pub async fn sessions(
        &self,
        tenant: &str,
        member: Option<&str>,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<session::Model>, ReadError> {
        let query = Query::of::<session::Model>().filter("tenant_id = ?", tenant);
        self.reads().all(query.filter_if("member_id = ?", member).newest(after, limit)).await
    }

    /// Ids of a member's sessions, those that have not ended first and then the last used, without the first `keep`.
    pub async fn surplus_sessions(
        &self,
        tenant: &str,
        member: &str,
        keep: u32,
    ) -> Result<Vec<String>, ReadError> {
        let query = Query::new("SELECT id FROM sessions").filter("tenant_id = ?", tenant);
        let query = query
            .filter("member_id = ?", member)
            .sql("ORDER BY ended_at IS NOT NULL, last_used_at DESC, id DESC");
        let ids: Vec<String> = self.reads().column(query).await?;
        Ok(ids.into_iter().skip(keep as usize).collect())
    }
}
