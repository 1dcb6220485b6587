//! The audit: pages of it, and the proof that it is unchanged.
//!
//! The proof rests on the signed heads, whose key is not in the registry. What it cannot see: a tail that was removed
//! together with its heads. An operator who wants that too keeps a head elsewhere.

use serde::Serialize;

use super::chain::{Link, head_message};
use super::entity::{audit, audit_head};
use super::query::Query;
use super::{ReadError, Store};
use crate::keyring::{from_base64url, verify};

const CHUNK: u64 = 1_000;

/// What the verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Records that are as they were written.
    pub verified: i64,
    /// Signed heads that cover them.
    pub heads: u64,
    /// Records at the tail that have no number yet, and so no proof.
    pub unsealed: u64,
    /// The first thing that is not as it was written; none: the audit is whole.
    pub broken: Option<Broken>,
}

/// The first broken place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// The number of the record.
    pub seq: i64,
    /// Its id, where a record stands there.
    pub id: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong with a place of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// There is no record of this number, but later ones, or a signed head: it was deleted.
    Missing,
    /// Its hash is not that of its content after the record before it: it was edited, inserted or moved.
    Changed,
    /// The records up to the next head fit each other but not the head: all were written anew.
    Rewritten,
    /// The head here is not signed by the key.
    Forged,
    /// No head covers this record and the following ones: they were added without the key, or their head was deleted.
    Unsigned,
}

impl Store {
    /// Audit records, newest first, from the one after this id on, of one tenant or of all.
    pub async fn audit(
        &self,
        tenant: Option<&str>,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<audit::Model>, ReadError> {
        let query = Query::of::<audit::Model>().filter_if("tenant_id = ?", tenant);
        self.reads().all(query.newest(after, limit)).await
    }

    /// The last link of the chain.
    pub(super) async fn last_link(&self) -> Result<Link, ReadError> {
        let query =
            Query::new("SELECT seq, hash FROM audit").only("seq IS NOT NULL").sql("ORDER BY seq DESC");
        let last: Option<(i64, Option<String>)> = self.reads().one(query).await?;
        Ok(match last {
            Some((seq, Some(hash))) => Link { seq, hash },
            _ => Link::start(),
        })
    }

    /// Walks the whole chain and checks it against its heads, signed by the owner of `public` (Ed25519).
    pub async fn audit_verify(&self, public: &[u8]) -> Result<AuditReport, ReadError> {
        let mut walk = Walk { public, link: Link::start(), covered: 0, heads: 0 };
        let broken = loop {
            let from = walk.link.seq;
            let records = self.records_after(from).await?;
            let Some(last) = records.last().and_then(|record| record.seq) else {
                break self.tail_fault(&walk).await?;
            };
            let heads = self.heads_between(from, last).await?;
            if let Some(broken) = walk.check(&records, heads)? {
                break Some(broken);
            }
        };
        let unsealed = Query::new("SELECT count(*) FROM audit").only("seq IS NULL");
        let unsealed = self.reads().column::<i64>(unsealed).await?.first().copied().unwrap_or_default();
        let unsealed = u64::try_from(unsealed).unwrap_or_default();
        let verified = if broken.is_some() { walk.covered.min(walk.link.seq) } else { walk.link.seq };
        Ok(AuditReport { verified, heads: walk.heads, unsealed, broken })
    }

    /// What is wrong after the last record.
    async fn tail_fault(&self, walk: &Walk<'_>) -> Result<Option<Broken>, ReadError> {
        let seq = walk.link.seq + 1;
        let beyond = Query::new("SELECT seq FROM audit_heads").filter("seq >= ?", seq);
        let beyond: Option<(i64,)> = self.reads().one(beyond).await?;
        // Sealing may go on while this walks: only a head that is still beyond the last record counts.
        if beyond.is_some() && self.last_link().await?.seq < seq {
            return Ok(Some(Broken { seq, id: None, fault: Fault::Missing }));
        }
        if walk.covered < walk.link.seq {
            let first = walk.covered + 1;
            let record: Option<(String,)> =
                self.reads().one(Query::new("SELECT id FROM audit").filter("seq = ?", first)).await?;
            return Ok(Some(Broken { seq: first, id: record.map(|(id,)| id), fault: Fault::Unsigned }));
        }
        Ok(None)
    }

    async fn records_after(&self, seq: i64) -> Result<Vec<audit::Model>, ReadError> {
        let query = Query::of::<audit::Model>().filter("seq > ?", seq);
        self.reads().all(query.sql("ORDER BY seq").limit(CHUNK)).await
    }

    async fn heads_between(&self, after: i64, last: i64) -> Result<Vec<audit_head::Model>, ReadError> {
        let query = Query::of::<audit_head::Model>().filter("seq > ?", after).filter("seq <= ?", last);
        self.reads().all(query.sql("ORDER BY seq")).await
    }
}

/// How far the verification has come.
struct Walk<'a> {
    public: &'a [u8],
    link: Link,
    /// The last record that a good head covers.
    covered: i64,
    heads: u64,
}

impl Walk<'_> {
    fn check(
        &mut self,
        records: &[audit::Model],
        heads: Vec<audit_head::Model>,
    ) -> Result<Option<Broken>, ReadError> {
        let mut heads = heads.into_iter().peekable();
        for record in records {
            let next = self.link.next(record)?;
            if record.seq != Some(next.seq) {
                return Ok(Some(Broken { seq: next.seq, id: None, fault: Fault::Missing }));
            }
            let broken = |fault| Ok(Some(Broken { seq: next.seq, id: Some(record.id.clone()), fault }));
            if record.hash.as_deref() != Some(next.hash.as_str()) {
                return broken(Fault::Changed);
            }
            if let Some(head) = heads.next_if(|head| head.seq == next.seq) {
                let signature = from_base64url(&head.signature).unwrap_or_default();
                if !verify(self.public, &head_message(head.seq, &head.hash, head.at.into()), &signature) {
                    return broken(Fault::Forged);
                }
                if head.hash != next.hash {
                    let first = self.covered + 1;
                    return Ok(Some(Broken { seq: first, id: None, fault: Fault::Rewritten }));
                }
                self.covered = next.seq;
                self.heads += 1;
            }
            self.link = next;
        }
        Ok(None)
    }
}
