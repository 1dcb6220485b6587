//! The sealer: numbers events and audit records after their commit, links the audit records into a hash chain, and signs
//! the chain's head.
//!
//! Events and audit records are written without a number, so that writers do not wait for each other. One task reads the
//! rows without a number, in the order of their ids, and numbers them in one batch; commits wake it. The batch is rejected
//! if another process has numbered one of its rows. Of several processes the leader seals; the others notify it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_model::{Columns, Timestamp, Write, columns};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::chain::{Link, head_message};
use super::entity::audit;
use super::query::Query;
use super::{Notification, ReadError, Rejected, Store, WriteBatch};
use crate::keyring::{Keyring, KeyringError, SigningKey, base64url};

/// Maximum number of events and of audit records in one batch.
const BATCH: usize = 1_000;
/// Time after the first new row in which further ones are collected for the same batch.
const TOGETHER: Duration = Duration::from_millis(10);
/// Time after an error before the next attempt.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Name of the keyring's key that signs the heads of the audit chain.
pub const AUDIT_KEY: &str = "audit_signing";

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
    pub async fn start(store: Store, keyring: &Keyring, seals: bool) -> Result<Self, KeyringError> {
        let key = keyring.signing_key(AUDIT_KEY).await?;
        let (stop, facts) = (Arc::new(Notify::new()), store.facts());
        let (heads, seals) = (watch::Sender::new(0), watch::Sender::new(seals));
        let task = tokio::spawn(run(store, key, heads.clone(), seals.subscribe(), Arc::clone(&stop)));
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

async fn run(
    store: Store,
    key: SigningKey,
    heads: watch::Sender<i64>,
    mut seals: watch::Receiver<bool>,
    stop: Arc<Notify>,
) {
    let facts = store.facts();
    let mut stopping = false;
    let mut last = None;
    loop {
        let done = if *seals.borrow_and_update() {
            let sealed = seal_all(&store, &key, &heads, &mut last).await;
            store.notify(Notification::Sealed(*heads.borrow()));
            sealed
        } else {
            last = None;
            store.notify(Notification::Unsealed);
            Ok(())
        };
        if let Err(error) = &done {
            // A commit without a response may have succeeded, so read the last numbers again.
            last = None;
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
    Write(#[from] Rejected),
}

/// The last assigned number of an event, and the last link of the audit chain.
struct Last {
    event: i64,
    link: Link,
}

/// Numbers rows until none without a number is left. If `last` is none, it is read first.
async fn seal_all(
    store: &Store,
    key: &SigningKey,
    heads: &watch::Sender<i64>,
    last: &mut Option<Last>,
) -> Result<(), SealError> {
    let Last { event, link } = match last {
        Some(last) => last,
        None => last.insert(Last { event: store.last_event_seq().await?, link: store.last_link().await? }),
    };
    loop {
        heads.send_replace(*event);
        let mut writes = Vec::new();
        let events = unsealed_events(store).await?;
        for id in &events {
            *event += 1;
            writes.push(number("events", id, columns! { "seq": *event }));
        }
        let records = unsealed_audit(store).await?;
        for record in &records {
            *link = link.next(record)?;
            writes.push(number("audit", &record.id, columns! { "seq": link.seq, "hash": link.hash }));
        }
        if writes.is_empty() {
            return Ok(());
        }
        if !records.is_empty() {
            let at = Timestamp::now();
            let signature = base64url(&key.sign(&head_message(link.seq, &link.hash, at)));
            let head = columns! { "seq": link.seq, "hash": link.hash, "signature": signature, "at": at };
            writes.push(Write::insert_unique("audit_heads", head));
        }
        store.commit(WriteBatch::new(writes)).await?;
        // Later commits wake the task again; read on only if the batch was full.
        if events.len().max(records.len()) < BATCH {
            heads.send_replace(*event);
            return Ok(());
        }
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
