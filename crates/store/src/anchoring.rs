//! Compares the audit chain in the registry with its anchor in the keyring, and accepts cuts.
//!
//! The sealer moves the anchor before it seals a batch, and names the batch's records in it. If the process dies between
//! the two commits, those records are in the registry without a number, and they lead from the chain's end exactly to
//! the anchor. If they do not, the registry has lost records that the anchor counts.

use std::collections::BTreeMap;

use super::chain::Link;
use super::entity::audit;
use super::query::Query;
use super::{ReadError, Store};
use crate::keyring::{Anchor, Cut, Keyring, KeyringError};

/// Error of the registry or the keyring while the audit trail is verified or sealed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuditError {
    /// The registry cannot be read.
    #[error(transparent)]
    Registry(#[from] ReadError),
    /// The keyring does not answer.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

/// What the registry has of the records that the anchor counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Anchored {
    /// All of them, in the chain.
    Complete,
    /// All of them. These were not in the chain when its last record was read: the commit that seals them is missing.
    Unsealed(Vec<audit::Model>),
    /// Fewer, or other ones.
    Cut,
}

impl Store {
    /// Compares the chain with the anchor, which the caller read before. Returns the last link of the chain too.
    pub(super) async fn compare(&self, anchor: &Anchor) -> Result<(Link, Anchored), ReadError> {
        let link = self.last_link().await?;
        if link.seq >= anchor.seq {
            let complete = self.has_link(anchor.seq, &anchor.hash).await?;
            return Ok((link, if complete { Anchored::Complete } else { Anchored::Cut }));
        }
        let ids = anchor.pending();
        if anchor.seq - link.seq != ids.len() as i64 {
            return Ok((link, Anchored::Cut));
        }
        let found = Query::of::<audit::Model>().filter("id IN ?", ids.clone());
        let found: Vec<audit::Model> = self.reads().all(found).await?;
        let mut found: BTreeMap<_, _> = found.into_iter().map(|record| (record.id.clone(), record)).collect();
        let records: Vec<audit::Model> = ids.iter().filter_map(|id| found.remove(id)).collect();
        let end = records.iter().try_fold(link.clone(), |link, record| link.next(record))?;
        let reached = (end.seq, &end.hash) == (anchor.seq, &anchor.hash);
        Ok((link, if reached { Anchored::Unsealed(records) } else { Anchored::Cut }))
    }

    /// Whether the chain has a record with this number and hash.
    pub(super) async fn has_link(&self, seq: i64, hash: &str) -> Result<bool, ReadError> {
        if seq == 0 {
            return Ok(true);
        }
        let query = Query::new("SELECT seq FROM audit").filter("seq = ?", seq).filter("hash = ?", hash);
        Ok(self.reads().one::<(i64,)>(query).await?.is_some())
    }

    /// Accepts every cut of the audit chain with this reason, so that the verification succeeds again. Returns the
    /// accepted cuts; they stay in the keyring.
    pub async fn accept_cuts(&self, keyring: &Keyring, reason: &str) -> Result<Vec<Cut>, AuditError> {
        if let Some(anchor) = keyring.anchor().await?
            && let (link, Anchored::Cut) = self.compare(&anchor).await?
        {
            keyring.record_cut(&anchor, &link).await?;
        }
        Ok(keyring.accept_cuts(reason).await?)
    }
}
