//! Deletes expired rows: stored responses to idempotency keys, sign-in codes, and sessions. Deletes in small batches, so that other
//! writes do not wait long.

use tenantry_model::{Columns, Timestamp, Write, columns};

use super::query::Query;
use super::{ReadError, Rejected, Store, WriteBatch};

/// Maximum number of rows in a batch.
const PIECE: u64 = 500;

/// Error of a deletion; earlier batches stay deleted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExpiryError {
    /// The registry cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The registry cannot be written.
    #[error(transparent)]
    Write(#[from] Rejected),
}

impl Store {
    /// Deletes responses to idempotency keys that were stored before this time. Returns their number.
    pub async fn forget_answers(&self, before: Timestamp) -> Result<usize, ExpiryError> {
        let mut forgotten = 0;
        loop {
            let old = Query::new("SELECT principal, key_hash FROM idempotency_keys")
                .filter("created_at < ?", before)
                .sql("ORDER BY created_at")
                .limit(PIECE);
            let old: Vec<(String, String)> = self.reads().all(old).await?;
            let key = |(principal, key_hash): &(String, String)| {
                Write::delete("idempotency_keys", columns! { "principal": principal, "key_hash": key_hash })
            };
            self.forget(old.iter().map(key).collect()).await?;
            forgotten += old.len();
            if old.len() < PIECE as usize {
                return Ok(forgotten);
            }
        }
    }

    /// Deletes one-time sign-in codes that expired before this time. Returns their number.
    pub async fn forget_codes(&self, before: Timestamp) -> Result<usize, ExpiryError> {
        self.forget_expired("sign_in_codes", "hash", before).await
    }

    /// Deletes sessions, ended or not, that expired before this time. Returns their number.
    pub async fn forget_sessions(&self, before: Timestamp) -> Result<usize, ExpiryError> {
        self.forget_expired("sessions", "id", before).await
    }

    /// Deletes the rows of a table whose `expires_at` is before this time. `key`: its primary key.
    async fn forget_expired(
        &self,
        table: &'static str,
        key: &'static str,
        before: Timestamp,
    ) -> Result<usize, ExpiryError> {
        let mut forgotten = 0;
        loop {
            let old = Query::new(format!("SELECT {key} FROM {table}"))
                .filter("expires_at < ?", before)
                .sql("ORDER BY expires_at")
                .limit(PIECE);
            let old: Vec<String> = self.reads().column(old).await?;
            let delete = |id: &String| {
                let mut columns = Columns::default();
                columns.set(key, id);
                Write::delete(table, columns)
            };
            self.forget(old.iter().map(delete).collect()).await?;
            forgotten += old.len();
            if old.len() < PIECE as usize {
                return Ok(forgotten);
            }
        }
    }

    async fn forget(&self, writes: Vec<Write>) -> Result<(), Rejected> {
        if writes.is_empty() { Ok(()) } else { self.commit(WriteBatch::new(writes)).await }
    }
}
