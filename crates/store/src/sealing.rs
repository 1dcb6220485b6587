//! The sealer: numbers events and audit records after their commit, and chains and signs the audit.
//!
//! A fact's own transaction gives it no number, so that writers never wait for each other. One task reads what is
//! unnumbered, in id order, and numbers it in one batch; it sleeps until commits wake it. The batch is refused if
//! another process has numbered one of its rows. Of several processes the leader seals; the others notify it.

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

/// Most records of each kind in one batch.
const BATCH: usize = 1_000;
/// How long facts wait for others after the first.
const TOGETHER: Duration = Duration::from_millis(10);
/// How long to wait after a failure. Otherwise commits alone wake it.
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
    /// Starts sealing, what was left unsealed included; or, if another process seals, telling it of facts.
    pub async fn start(store: Store, keyring: &Keyring, seals: bool) -> Result<Self, KeyringError> {
        let key = keyring.signing_key(AUDIT_KEY).await?;
        let (stop, facts) = (Arc::new(Notify::new()), store.facts());
        let (heads, seals) = (watch::Sender::new(0), watch::Sender::new(seals));
        let task = tokio::spawn(run(store, key, heads.clone(), seals.subscribe(), Arc::clone(&stop)));
        Ok(Self { stop, facts, seals, heads, task: Mutex::new(Some(task)) })
    }

    /// Whether this process seals, from now on.
    pub fn set(&self, seals: bool) {
        self.seals.send_replace(seals);
    }

    /// Another process has facts to be sealed.
    pub fn notice_unsealed(&self) {
        self.facts.notify_one();
    }

    /// Another process has sealed events up to this number.
    pub fn notice_head(&self, seq: i64) {
        self.heads.send_if_modified(|head| {
            let newer = seq > *head;
            *head = seq.max(*head);
            newer
        });
    }

    /// The number of the last sealed event, as it grows; 0 while there is none or it is not yet read.
    pub fn head(&self) -> watch::Receiver<i64> {
        self.heads.subscribe()
    }

    /// Seals what is committed by now, and ends.
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
            // A commit without an answer may hold.
            last = None;
            tracing::warn!(%error, "facts cannot be sealed now");
        }
        if stopping {
            return;
        }
        tokio::select! {
            () = stop.notified() => stopping = true,
            Ok(()) = seals.changed() => {}
            // Facts of one operation come close together: they are sealed together.
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

/// The last numbers given.
struct Last {
    event: i64,
    link: Link,
}

/// Seals until nothing is left. `last` is read if it is not known.
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
        // What was committed since the read wakes us again; only what did not fit must be asked for.
        if events.len().max(records.len()) < BATCH {
            heads.send_replace(*event);
            return Ok(());
        }
    }
}

/// Numbers a row that has no number.
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
