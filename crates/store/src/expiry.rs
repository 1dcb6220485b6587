//! What has run out goes: answers that nobody asks for again, codes that nobody can use any more. In small units, so that
//! nobody waits for them.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};
use tenantry_model::{Timestamp, Write, columns};

use super::entity::{idempotency_key, sign_in_code};
use super::{ReadError, Rejected, Stamp, Store, Unit};

/// Rows of one unit.
const PIECE: u64 = 500;

/// Why something stays.
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
    /// Forgets answers to idempotency keys of before this instant; says how many.
    pub async fn forget_answers(&self, before: Timestamp) -> Result<usize, ExpiryError> {
        use idempotency_key::{Column, Entity};
        let mut forgotten = 0;
        loop {
            let old = Entity::find()
                .select_only()
                .columns([Column::Principal, Column::KeyHash])
                .filter(Column::CreatedAt.lt(Stamp::from(before)))
                .order_by_asc(Column::CreatedAt)
                .limit(PIECE);
            let old: Vec<(String, String)> =
                old.into_tuple().all(self.reads()).await.map_err(ReadError::from)?;
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

    /// Forgets one-time sign-in codes that ended before this instant; says how many.
    pub async fn forget_codes(&self, before: Timestamp) -> Result<usize, ExpiryError> {
        use sign_in_code::{Column, Entity};
        let mut forgotten = 0;
        loop {
            let old = Entity::find()
                .select_only()
                .column(Column::Hash)
                .filter(Column::ExpiresAt.lt(Stamp::from(before)))
                .order_by_asc(Column::ExpiresAt)
                .limit(PIECE);
            let old: Vec<String> = old.into_tuple().all(self.reads()).await.map_err(ReadError::from)?;
            let key = |hash: &String| Write::delete("sign_in_codes", columns! { "hash": hash });
            self.forget(old.iter().map(key).collect()).await?;
            forgotten += old.len();
            if old.len() < PIECE as usize {
                return Ok(forgotten);
            }
        }
    }

    async fn forget(&self, writes: Vec<Write>) -> Result<(), Rejected> {
        if writes.is_empty() { Ok(()) } else { self.commit(Unit::new(writes)).await }
    }
}
