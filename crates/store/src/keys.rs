//! Reads of API keys and answered idempotency keys; the one-time hand-out of credentials.

use std::collections::BTreeSet;

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};
use tenantry_model::{Timestamp, Write, columns};

use super::entity::{api_key, credential, idempotency_key};
use super::page::newest;
use super::reading;
use super::{ReadError, Rejected, Store, Unit};

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
        Ok(api_key::Entity::find().filter(api_key::Column::Hash.eq(hash)).one(self.reads()).await?)
    }

    /// An API key.
    pub async fn key(&self, id: &str) -> Result<Option<api_key::Model>, ReadError> {
        Ok(api_key::Entity::find_by_id(id).one(self.reads()).await?)
    }

    /// API keys, newest first, from the one after this id on.
    pub async fn keys(&self, after: Option<&str>, limit: u64) -> Result<Vec<api_key::Model>, ReadError> {
        reading::all(self.reads(), newest(api_key::Entity::find(), api_key::Column::Id, after, limit)).await
    }

    /// What was answered for an idempotency key.
    pub async fn idempotency_key(
        &self,
        principal: &str,
        key_hash: &str,
    ) -> Result<Option<idempotency_key::Model>, ReadError> {
        let key = (principal.to_owned(), key_hash.to_owned());
        Ok(idempotency_key::Entity::find_by_id(key).one(self.reads()).await?)
    }

    /// Those of these operations whose credentials wait to be handed out. At most one query.
    pub async fn credentials_waiting(&self, operations: &[String]) -> Result<BTreeSet<String>, ReadError> {
        if operations.is_empty() {
            return Ok(BTreeSet::new());
        }
        let waiting: Vec<String> = credential::Entity::find()
            .select_only()
            .column(credential::Column::OperationId)
            .filter(credential::Column::OperationId.is_in(operations))
            .filter(credential::Column::Sealed.is_not_null())
            .into_tuple()
            .all(self.reads())
            .await?;
        Ok(waiting.into_iter().collect())
    }

    /// A tenant's credentials that wait to be handed out.
    pub async fn sealed_credentials(&self, tenant: &str) -> Result<Vec<credential::Model>, ReadError> {
        let query = credential::Entity::find().filter(credential::Column::TenantId.eq(tenant));
        Ok(query.filter(credential::Column::Sealed.is_not_null()).all(self.reads()).await?)
    }

    /// Hands an operation's credentials out, by name and still sealed, once: of several callers one gets them, the
    /// others none. `deed` (the audit record) is written with it.
    pub async fn claim_credentials(
        &self,
        operation: &str,
        at: Timestamp,
        deed: Write,
    ) -> Result<Vec<(String, String)>, ClaimError> {
        let rows = credential::Entity::find()
            .filter(credential::Column::OperationId.eq(operation))
            .filter(credential::Column::Sealed.is_not_null())
            .order_by_asc(credential::Column::Name)
            .all(self.reads())
            .await
            .map_err(ReadError::from)?;
        let waiting: Vec<(String, String)> =
            rows.into_iter().filter_map(|row| Some((row.name, row.sealed?))).collect();
        if waiting.is_empty() {
            return Ok(waiting);
        }
        let take = |(name, _): &(String, String)| {
            let key = columns! { "operation_id": operation, "name": name };
            let taken = columns! { "sealed": (), "claimed_at": at };
            Write::update_if("credentials", key, columns! { "claimed_at": () }, taken)
        };
        let writes = waiting.iter().map(take).chain([deed]).collect();
        match self.commit(Unit::new(writes)).await {
            Ok(()) => Ok(waiting),
            Err(Rejected::Stale { table: "credentials", .. }) => Ok(Vec::new()),
            Err(rejected) => Err(ClaimError::Write(rejected)),
        }
    }
}
