//! Reads audit records, and verifies that the audit trail is unchanged. Writes nothing.
//!
//! The verification relies on the signed heads of the chain, whose key is not in the registry, and on the anchor in the
//! keyring, which counts the records: without it, the last records could be deleted together with their heads.

use serde::Serialize;

use super::chain::{Link, head_message};
use super::entity::{audit, audit_head};
use super::query::Query;
use super::{ReadError, Store};
use crate::anchoring::{Anchored, AuditError};
use crate::keyring::{Cut, Keyring, from_base64url, verify};
use crate::sealing::AUDIT_KEY;

/// Records that are read at a time.
const CHUNK: u64 = 1_000;

/// Result of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Number of records that are unchanged.
    pub verified: i64,
    /// Number of valid signed heads.
    pub heads: u64,
    /// Number of records that are not sealed yet, and so cannot be verified.
    pub unsealed: u64,
    /// Number of records by the anchor in the keyring; none before the first batch that was sealed with an anchor.
    pub anchored: Option<i64>,
    /// The cuts that were found, oldest first, accepted ones included.
    pub cuts: Vec<Cut>,
    /// The first fault; none if the audit trail is unchanged.
    pub broken: Option<Broken>,
}

/// The first fault in the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Number of the record in the chain.
    pub seq: i64,
    /// Id of the record; none if no record has this number.
    pub id: Option<String>,
    /// Kind of the fault.
    pub fault: Fault,
}

/// Kind of a fault in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// No record has this number, but a later record or a signed head exists: the record was deleted.
    Missing,
    /// The hash does not match the previous hash and the content: the record was edited, inserted or moved.
    Changed,
    /// The hashes up to the next head match each other but not the head: all these records were rewritten.
    Rewritten,
    /// The signature of the head at this record is not valid for the key.
    Forged,
    /// No head covers this record and the following ones: they were added without the key, or their head was deleted.
    Unsigned,
    /// By the anchor in the keyring there were more records, or another one with this number: the last records were deleted
    /// together with their heads, or the registry was restored from a backup.
    Cut,
}

impl Store {
    /// Up to `limit` audit records of one tenant or of all, newest first, starting after the record with the
    /// id `after`.
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

    /// Verifies the whole chain against its heads, which the keyring's key must have signed, and against the anchor.
    pub async fn audit_verify(&self, keyring: &Keyring) -> Result<AuditReport, AuditError> {
        let key = keyring.signing_key(AUDIT_KEY).await?;
        // Before the chain: a sealer that runs meanwhile makes both longer.
        let (anchor, mut cuts) = (keyring.anchor().await?, keyring.cuts().await?);
        let mut walk = Walk { public: key.public(), link: Link::start(), covered: 0, heads: 0 };
        let mut broken = self.walk(&mut walk).await?;
        if let Some(anchor) = &anchor
            && let (link, Anchored::Cut) = self.compare(anchor).await?
        {
            cuts.push(anchor.cut(&link));
        }
        if broken.is_none() {
            broken = self.open_cut(&cuts).await?;
        }
        let unsealed = Query::new("SELECT count(*) FROM audit").only("seq IS NULL");
        let unsealed = self.reads().column::<i64>(unsealed).await?.first().copied().unwrap_or_default();
        let unsealed = u64::try_from(unsealed).unwrap_or_default();
        let verified = if broken.is_some() { walk.covered.min(walk.link.seq) } else { walk.link.seq };
        let anchored = anchor.map(|anchor| anchor.seq);
        Ok(AuditReport { verified, heads: walk.heads, unsealed, anchored, cuts, broken })
    }

    /// Walks the chain to its end or its first fault.
    async fn walk(&self, walk: &mut Walk<'_>) -> Result<Option<Broken>, ReadError> {
        loop {
            let from = walk.link.seq;
            let records = self.records_after(from).await?;
            let Some(last) = records.last().and_then(|record| record.seq) else {
                return self.tail_fault(walk).await;
            };
            let heads = self.heads_between(from, last).await?;
            if let Some(broken) = walk.check(&records, heads)? {
                return Ok(Some(broken));
            }
        }
    }

    /// The fault of the first cut that no operator has accepted, unless its records are in the chain again.
    async fn open_cut(&self, cuts: &[Cut]) -> Result<Option<Broken>, ReadError> {
        for cut in cuts.iter().filter(|cut| cut.accepted_at.is_none()) {
            if !self.has_link(cut.anchored_seq, &cut.anchored_hash).await? {
                return Ok(Some(Broken { seq: cut.first_missing(), id: None, fault: Fault::Cut }));
            }
        }
        Ok(None)
    }

    /// The fault after the last record, if there is one: a head without its record, or records without a head.
    async fn tail_fault(&self, walk: &Walk<'_>) -> Result<Option<Broken>, ReadError> {
        let seq = walk.link.seq + 1;
        let beyond = Query::new("SELECT seq FROM audit_heads").filter("seq >= ?", seq);
        let beyond: Option<(i64,)> = self.reads().one(beyond).await?;
        // The sealer may run meanwhile: only a head that is still beyond the last record is a fault.
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

/// Progress of a verification.
struct Walk<'a> {
    public: &'a [u8],
    link: Link,
    /// Number of the last record that a valid head covers.
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
