//! Reads API keys, idempotency keys and encrypted credentials from the registry, and hands out an operation's
//! credentials once.

use std::collections::BTreeSet;

use tenantry_model::{Timestamp, Write, columns};

use super::entity::{api_key, credential, idempotency_key};
use super::query::Query;
use super::{ReadError, Rejected, Store, WriteBatch};

/// Error of [`Store::claim_credentials`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClaimError {
    /// The registry cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The claim was not written, or its outcome is unknown: if it was written, these credentials can no
    /// longer be handed out.
    #[error(transparent)]
    Write(Rejected),
}

impl Store {
    /// The API key with this hash, also if it is revoked or expired.
    pub async fn key_by_hash(&self, hash: &str) -> Result<Option<api_key::Model>, ReadError> {
        self.reads().one(Query::of::<api_key::Model>().filter("hash = ?", hash)).await
    }

    /// The API key with this id.
    pub async fn key(&self, id: &str) -> Result<Option<api_key::Model>, ReadError> {
        self.reads().one(Query::of::<api_key::Model>().filter("id = ?", id)).await
    }

    /// Up to `limit` API keys, newest first, starting after the key with the id `after`.
    pub async fn keys(&self, after: Option<&str>, limit: u64) -> Result<Vec<api_key::Model>, ReadError> {
        self.reads().all(Query::of::<api_key::Model>().newest(after, limit)).await
    }

    /// The stored response to a principal's idempotency key; none if the key is new.
    pub async fn idempotency_key(
        &self,
        principal: &str,
        key_hash: &str,
    ) -> Result<Option<idempotency_key::Model>, ReadError> {
        let query = Query::of::<idempotency_key::Model>().filter("principal = ?", principal);
        self.reads().one(query.filter("key_hash = ?", key_hash)).await
    }

    /// Selects the operations whose credentials have not been claimed yet. Runs at most one query.
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

    /// Returns a tenant's credentials that have not been claimed yet.
    pub async fn sealed_credentials(&self, tenant: &str) -> Result<Vec<credential::Model>, ReadError> {
        let query = Query::of::<credential::Model>().filter("tenant_id = ?", tenant);
        self.reads().all(query.only("sealed IS NOT NULL")).await
    }

    /// Hands out an operation's credentials once: returns their names and encrypted values to one of several
    /// callers, and nothing to the others. Writes the audit record `audited` in the same transaction.
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
