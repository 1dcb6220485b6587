//! The sealer: numbers events and audit records after their commit, links the audit records into a hash chain, signs the
//! chain's head, and anchors it in the keyring.
//!
//! Events and audit records are written without a number, so that writers do not wait for each other. One task reads the
//! rows without a number, in the order of their ids, and numbers them in one batch; commits wake it. The batch is rejected
//! if another process has numbered one of its rows. Of several processes the leader seals; the others notify it.
//!
//! The anchor is moved before the batch is committed, so a crash between the two leaves records that the anchor counts and
//! the chain lacks; the next sealer seals exactly these first (`anchoring`). While the keyring does not answer, events are
//! numbered and audit records wait.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_model::{Columns, Timestamp, Write, columns};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::anchoring::Anchored;
use super::chain::{Link, head_message};
use super::entity::audit;
use super::query::Query;
use super::{AuditError, Notification, ReadError, Rejected, Store, WriteBatch};
use crate::keyring::{Anchor, Keyring, KeyringError, SigningKey, base64url};

/// Maximum number of events and of audit records in one batch.
const BATCH: usize = 1_000;
/// Time after the first new row in which further ones are collected for the same batch.
const TOGETHER: Duration = Duration::from_millis(10);
/// Time for one batch of audit records. Events are not numbered meanwhile.
const KEYRING_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after an error before the next attempt.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Name of the keyring's key that signs the heads of the audit chain.
pub(super) const AUDIT_KEY: &str = "audit_signing";

/// The running sealer.
pub struct Sealing {
    stop: Arc<Notify>,
    facts: Arc<Notify>,
    seals: watch::Sender<bool>,
    heads: watch::Sender<i64>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Sealing {
    /// Starts the sealer, which also numbers rows of earlier processes. With `seals` false, it only notifies the leader of
    /// new rows.
    pub async fn start(store: Store, keyring: Arc<Keyring>, seals: bool) -> Result<Self, KeyringError> {
        let key = keyring.signing_key(AUDIT_KEY).await?;
        let (stop, facts) = (Arc::new(Notify::new()), store.facts());
        let (heads, seals) = (watch::Sender::new(0), watch::Sender::new(seals));
        let sealer = Sealer { store, keyring, key, heads: heads.clone(), event: None, chain: None };
        let task = tokio::spawn(run(sealer, seals.subscribe(), Arc::clone(&stop)));
        Ok(Self { stop, facts, seals, heads, task: Mutex::new(Some(task)) })
    }

    /// Sets whether this process seals.
    pub fn set(&self, seals: bool) {
        self.seals.send_replace(seals);
    }

    /// Tells the sealer that another process has committed events or audit records.
    pub fn notice_unsealed(&self) {
        self.facts.notify_one();
    }

    /// Tells the sealer that another process has numbered events up to this number.
    pub fn notice_head(&self, seq: i64) {
        self.heads.send_if_modified(|head| {
            let newer = seq > *head;
            *head = seq.max(*head);
            newer
        });
    }

    /// Watches the number of the last numbered event; 0 while there is none or it has not been read yet.
    pub fn head(&self) -> watch::Receiver<i64> {
        self.heads.subscribe()
    }

    /// Seals the rows that are committed by now, and ends the task.
    pub async fn stop(&self) {
        self.stop.notify_one();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the sealer ended abnormally");
        }
    }
}

impl Drop for Sealing {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

async fn run(mut sealer: Sealer, mut seals: watch::Receiver<bool>, stop: Arc<Notify>) {
    let facts = sealer.store.facts();
    let mut stopping = false;
    loop {
        let done = if *seals.borrow_and_update() {
            let sealed = sealer.seal_all().await;
            sealer.store.notify(Notification::Sealed(*sealer.heads.borrow()));
            sealed
        } else {
            sealer.forget();
            sealer.store.notify(Notification::Unsealed);
            Ok(())
        };
        if let Err(error) = &done {
            // A commit without a response may have succeeded, so read the last numbers again.
            sealer.forget();
            tracing::warn!(%error, "events and audit records cannot be numbered now; the next attempt follows");
        }
        if stopping {
            return;
        }
        tokio::select! {
            () = stop.notified() => stopping = true,
            Ok(()) = seals.changed() => {}
            // One operation writes several events within a short time; number them together.
            () = async { facts.notified().await; tokio::time::sleep(TOGETHER).await } => {}
            () = tokio::time::sleep(AFTER_FAILURE), if done.is_err() => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SealError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Write(#[from] Rejected),
    #[error("the keyring does not respond in time")]
    Timeout,
}

/// What the task works with.
struct Sealer {
    store: Store,
    keyring: Arc<Keyring>,
    key: SigningKey,
    heads: watch::Sender<i64>,
    /// The last assigned number of an event; none until it is read.
    event: Option<i64>,
    /// The end of the audit chain; none until it is read.
    chain: Option<Chain>,
}

/// The last link of the audit chain, and the anchor, which is none before the first record.
struct Chain {
    link: Link,
    anchor: Option<Anchor>,
}

impl Sealer {
    /// Drops the last numbers, so that they are read again.
    fn forget(&mut self) {
        (self.event, self.chain) = (None, None);
    }

    /// Numbers rows until none without a number is left.
    async fn seal_all(&mut self) -> Result<(), SealError> {
        // Later commits wake the task again; read on only if a batch was full.
        loop {
            while self.seal_events().await? == BATCH {}
            let records = timeout(KEYRING_TIMEOUT, self.seal_records()).await;
            if records.map_err(|_| SealError::Timeout)?? < BATCH {
                return Ok(());
            }
        }
    }

    /// Numbers the next events. Returns how many.
    async fn seal_events(&mut self) -> Result<usize, SealError> {
        let mut event = match self.event {
            Some(event) => event,
            None => self.store.last_event_seq().await?,
        };
        self.heads.send_replace(event);
        let events = unsealed_events(&self.store).await?;
        let mut writes = Vec::new();
        for id in &events {
            event += 1;
            writes.push(number("events", id, columns! { "seq": event }));
        }
        if !writes.is_empty() {
            self.store.commit(WriteBatch::new(writes)).await?;
        }
        self.event = Some(event);
        self.heads.send_replace(event);
        Ok(events.len())
    }

    /// Anchors the next audit records and seals them. Returns how many.
    async fn seal_records(&mut self) -> Result<usize, SealError> {
        let mut chain = match self.chain.take() {
            Some(chain) => chain,
            None => self.read_chain().await?,
        };
        let records = unsealed_audit(&self.store).await?;
        if !records.is_empty() {
            let (at, ids) = (Timestamp::now(), Vec::from_iter(records.iter().map(|record| &*record.id)));
            let (link, sealed) = self.seal(chain.link, &records, at)?;
            let anchor = Anchor::at(&link, &ids, at);
            self.keyring.move_anchor(chain.anchor.as_ref(), &anchor).await?;
            self.store.commit(WriteBatch::new(sealed)).await?;
            chain = Chain { link, anchor: Some(anchor) };
        }
        self.chain = Some(chain);
        Ok(records.len())
    }

    /// Reads the end of the chain. Seals what an earlier process has anchored and not sealed, and records a cut.
    async fn read_chain(&self) -> Result<Chain, SealError> {
        let Some(anchor) = self.keyring.anchor().await? else {
            let link = self.store.last_link().await?;
            let anchor = (link.seq > 0).then(|| Anchor::at(&link, &[], Timestamp::now()));
            if let Some(anchor) = &anchor {
                self.keyring.move_anchor(None, anchor).await?;
            }
            return Ok(Chain { link, anchor });
        };
        let (link, anchored) = self.store.compare(&anchor).await?;
        let (link, anchor) = match anchored {
            // The chain goes on behind the anchor when records came back from a backup.
            Anchored::Complete if link.seq > anchor.seq => {
                let end = Anchor::at(&link, &[], Timestamp::now());
                self.keyring.move_anchor(Some(&anchor), &end).await?;
                (link, end)
            }
            Anchored::Complete => (link, anchor),
            Anchored::Unsealed(records) => {
                let (link, writes) = self.seal(link, &records, Timestamp::now())?;
                self.store.commit(WriteBatch::new(writes)).await?;
                (link, anchor)
            }
            Anchored::Cut => {
                tracing::error!(
                    anchored = anchor.seq,
                    found = link.seq,
                    "the audit trail was cut: the keyring counts more records than the registry has; verify it"
                );
                let moved = self.keyring.record_cut(&anchor, &link).await?;
                (link, moved)
            }
        };
        Ok(Chain { link, anchor: Some(anchor) })
    }

    /// The writes that link records to the chain and sign the new head, and the new end of the chain.
    fn seal(
        &self,
        mut link: Link,
        records: &[audit::Model],
        at: Timestamp,
    ) -> Result<(Link, Vec<Write>), SealError> {
        let mut writes = Vec::with_capacity(records.len() + 1);
        for record in records {
            link = link.next(record)?;
            writes.push(number("audit", &record.id, columns! { "seq": link.seq, "hash": link.hash }));
        }
        let signature = base64url(&self.key.sign(&head_message(link.seq, &link.hash, at)));
        let head = columns! { "seq": link.seq, "hash": link.hash, "signature": signature, "at": at };
        writes.push(Write::insert_unique("audit_heads", head));
        Ok((link, writes))
    }
}

/// Write that numbers a row; it is rejected if the row has a number already.
fn number(table: &'static str, id: &str, set: Columns) -> Write {
    Write::update_if(table, columns! { "id": id }, columns! { "seq": () }, set)
}

async fn unsealed_events(store: &Store) -> Result<Vec<String>, ReadError> {
    let query = Query::new("SELECT id FROM events").only("seq IS NULL");
    store.reads().column(query.sql("ORDER BY id").limit(BATCH as u64)).await
}

async fn unsealed_audit(store: &Store) -> Result<Vec<audit::Model>, ReadError> {
    let query = Query::of::<audit::Model>().only("seq IS NULL");
    store.reads().all(query.sql("ORDER BY id").limit(BATCH as u64)).await
}
