//! Rows of the audit chain's anchor and of the cuts that were found by it. The keyring is apart from the registry, so a
//! registry that has lost its last records and their signed heads still differs from the anchor. The sealer and the
//! verification compare the two (`anchoring`).

use tenantry_model::{Timestamp, Write, columns};

use super::entity::{audit_anchor, audit_cut};
use super::{Keyring, KeyringError};
use crate::chain::Link;
use crate::query::Query;
use crate::table::{Record as _, upsert};
use crate::{Rejected, WriteBatch};

/// The anchor.
pub(crate) type Anchor = audit_anchor::Model;
/// A cut of the audit chain.
pub type Cut = audit_cut::Model;

impl Anchor {
    /// The anchor at a link. `pending`: ids of the records of the last batch, in order.
    pub(crate) fn at(link: &Link, pending: &[&str], at: Timestamp) -> Self {
        Self { id: 1, seq: link.seq, hash: link.hash.clone(), pending: pending.into(), at: at.into() }
    }

    /// Ids of the records of the last batch, in order.
    pub(crate) fn pending(&self) -> Vec<String> {
        let ids = self.pending.as_array().into_iter().flatten();
        ids.filter_map(|id| id.as_str().map(str::to_owned)).collect()
    }

    /// The cut of a registry whose last record is at `link`.
    pub(crate) fn cut(&self, link: &Link) -> Cut {
        Cut {
            anchored_seq: self.seq,
            anchored_hash: self.hash.clone(),
            anchored_at: self.at,
            found_seq: link.seq,
            found_at: Timestamp::now().into(),
            accepted_at: None,
            accepted_reason: None,
        }
    }
}

impl Cut {
    /// Number of the first record that the registry did not have.
    pub fn first_missing(&self) -> i64 {
        self.anchored_seq.min(self.found_seq + 1)
    }
}

impl Keyring {
    /// The anchor; none before the first record is sealed.
    pub(crate) async fn anchor(&self) -> Result<Option<Anchor>, KeyringError> {
        Ok(self.database.reads.one(Query::of::<Anchor>()).await?)
    }

    /// Replaces the anchor. Returns an error if it is not `from` any more.
    pub(crate) async fn move_anchor(&self, from: Option<&Anchor>, to: &Anchor) -> Result<(), KeyringError> {
        self.replace(from, to, Vec::new()).await
    }

    /// Records a cut, and moves the anchor to the last record that the registry has.
    pub(crate) async fn record_cut(&self, anchor: &Anchor, link: &Link) -> Result<Anchor, KeyringError> {
        let moved = Anchor::at(link, &[], Timestamp::now());
        self.replace(Some(anchor), &moved, vec![upsert(&anchor.cut(link))]).await?;
        Ok(moved)
    }

    async fn replace(
        &self,
        from: Option<&Anchor>,
        to: &Anchor,
        mut writes: Vec<Write>,
    ) -> Result<(), KeyringError> {
        writes.push(match from {
            None => Write::insert_unique(Anchor::TABLE, to.columns()),
            Some(from) => {
                let expected = columns! { "seq": from.seq, "hash": &*from.hash };
                let set = columns! { "seq": to.seq, "hash": &*to.hash, "pending": to.pending, "at": to.at };
                Write::update_if(Anchor::TABLE, columns! { "id": from.id }, expected, set)
            }
        });
        self.database.commit(WriteBatch::new(writes)).await.map_err(|rejected| match rejected {
            Rejected::Conflict { .. } | Rejected::Stale { .. } => KeyringError::Unavailable(
                "another process has moved the anchor of the audit chain".to_owned(),
            ),
            rejected => rejected.into(),
        })
    }

    /// All cuts that were found, oldest first.
    pub(crate) async fn cuts(&self) -> Result<Vec<Cut>, KeyringError> {
        Ok(self.database.reads.all(Query::of::<Cut>().sql("ORDER BY found_at, anchored_seq")).await?)
    }

    /// Accepts the cuts that are not accepted yet, and returns them.
    pub(crate) async fn accept_cuts(&self, reason: &str) -> Result<Vec<Cut>, KeyringError> {
        let mut cuts = self.cuts().await?;
        cuts.retain(|cut| cut.accepted_at.is_none());
        for cut in &mut cuts {
            cut.accepted_at = Some(Timestamp::now().into());
            cut.accepted_reason = Some(reason.to_owned());
        }
        self.database.commit(WriteBatch::new(cuts.iter().map(upsert).collect())).await?;
        Ok(cuts)
    }
}

#[cfg(test)]
mod tests {
    use tenantry_testkit::TestDatabase;

    use super::*;
    use crate::keyring::MasterKey;

    async fn replaced_only_by_the_process_that_knows_it(database: TestDatabase) {
        let folder = tempfile::tempdir().unwrap();
        let master = MasterKey::read_or_create(&folder.path().join("master.key")).unwrap();
        let keyring = Keyring::open(database.url(), master).await.unwrap();
        let [first, second, third] = [1, 2, 3]
            .map(|seq| Anchor::at(&Link { seq, hash: format!("{seq}") }, &["aud_1"], Timestamp::now()));
        keyring.move_anchor(None, &first).await.unwrap();
        keyring.move_anchor(None, &second).await.unwrap_err();
        keyring.move_anchor(Some(&first), &second).await.unwrap();
        keyring.move_anchor(Some(&first), &third).await.unwrap_err();
        keyring.record_cut(&first, &Link::start()).await.unwrap_err();
        assert_eq!((keyring.anchor().await.unwrap(), keyring.cuts().await.unwrap()), (Some(second), vec![]));
        keyring.close().await;
    }

    #[tokio::test]
    async fn the_anchor_is_replaced_only_by_the_process_that_knows_it_on_sqlite() {
        replaced_only_by_the_process_that_knows_it(TestDatabase::sqlite()).await;
    }

    #[tokio::test]
    async fn the_anchor_is_replaced_only_by_the_process_that_knows_it_on_postgres() {
        let Some(database) = TestDatabase::postgres().await else { return };
        replaced_only_by_the_process_that_knows_it(database).await;
    }
}
