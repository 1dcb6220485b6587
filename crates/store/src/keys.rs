//! Reads of API keys and answered idempotency keys; the one-time hand-out of credentials.

use std::collections::BTreeSet;

use tenantry_model::{Timestamp, Write, columns};

use super::entity::{api_key, credential, idempotency_key};
use super::query::Query;
use super::{ReadError, Rejected, Store, WriteBatch};

/// Why a claim failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClaimError {
    /// The registry cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The claim cannot be written. The credentials may be lost if it was written and not answered.
    #[error(transparent)]
    Write(Rejected),
}

impl Store {
    /// The API key with this hash, whatever its state.
    pub async fn key_by_hash(&self, hash: &str) -> Result<Option<api_key::Model>, ReadError> {
        self.reads().one(Query::of::<api_key::Model>().filter("hash = ?", hash)).await
    }

    /// An API key.
    pub async fn key(&self, id: &str) -> Result<Option<api_key::Model>, ReadError> {
        self.reads().one(Query::of::<api_key::Model>().filter("id = ?", id)).await
    }

    /// API keys, newest first, from the one after this id on.
    pub async fn keys(&self, after: Option<&str>, limit: u64) -> Result<Vec<api_key::Model>, ReadError> {
        self.reads().all(Query::of::<api_key::Model>().newest(after, limit)).await
    }

    /// What was answered for an idempotency key.
    pub async fn idempotency_key(
        &self,
        principal: &str,
        key_hash: &str,
    ) -> Result<Option<idempotency_key::Model>, ReadError> {
        let query = Query::of::<idempotency_key::Model>().filter("principal = ?", principal);
        self.reads().one(query.filter("key_hash = ?", key_hash)).await
    }

    /// Those of these operations whose credentials wait to be handed out. At most one query.
    pub async fn credentials_waiting(&self, operations: &[String]) -> Result<BTreeSet<String>, ReadError> {
        if operations.is_empty() {
            return Ok(BTreeSet::new());
        }
        let waiting = Query::new("SELECT operation_id FROM credentials")
            .filter("operation_id IN ?", operations)
            .only("sealed IS NOT NULL");
        let waiting: Vec<String> = self.reads().column(waiting).await?;
        Ok(waiting.into_iter().collect())
    }

    /// A tenant's credentials that wait to be handed out.
    pub async fn sealed_credentials(&self, tenant: &str) -> Result<Vec<credential::Model>, ReadError> {
        let query = Query::of::<credential::Model>().filter("tenant_id = ?", tenant);
        self.reads().all(query.only("sealed IS NOT NULL")).await
    }

    /// Hands an operation's credentials out, by name and still sealed, once: of several callers one gets them, the
    /// others none. `audited` (the audit record) is written with it.
    pub async fn claim_credentials(
        &self,
        operation: &str,
        at: Timestamp,
        audited: Write,
    ) -> Result<Vec<(String, String)>, ClaimError> {
        let waiting = Query::new("SELECT name, sealed FROM credentials")
            .filter("operation_id = ?", operation)
            .only("sealed IS NOT NULL")
            .sql("ORDER BY name");
        let waiting: Vec<(String, String)> = self.reads().all(waiting).await?;
        if waiting.is_empty() {
            return Ok(waiting);
        }
        let take = |(name, _): &(String, String)| {
            let key = columns! { "operation_id": operation, "name": name };
            let taken = columns! { "sealed": (), "claimed_at": at };
            Write::update_if("credentials", key, columns! { "claimed_at": () }, taken)
        };
        let writes = waiting.iter().map(take).chain([audited]).collect();
        match self.commit(WriteBatch::new(writes)).await {
            Ok(()) => Ok(waiting),
            Err(Rejected::Stale { table: "credentials", .. }) => Ok(Vec::new()),
            Err(rejected) => Err(ClaimError::Write(rejected)),
        }
    }
}
