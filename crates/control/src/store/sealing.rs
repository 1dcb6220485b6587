//! The sealer: numbers events and audit records after their commit, and chains and signs the audit.
//!
//! A fact's own transaction gives it no number, so that writers never wait for each other. One task reads what is
//! unnumbered, in id order, and numbers it in one unit; it sleeps until commits wake it. The unit is refused if
//! anybody else has numbered one of its rows.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sea_orm::sea_query::Expr;
use sea_orm::{EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};
use tenantry_model::{Columns, Timestamp, Write, columns};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::chain::head_message;
use super::entity::{audit, event};
use super::{ReadError, Rejected, Store, Unit};
use crate::keyring::{Keyring, KeyringError, SigningKey, base64url};

/// Most records of each kind in one unit.
const BATCH: u64 = 1_000;
/// How long to wait after a failure. Otherwise commits alone wake it.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Name of the keyring's key that signs the heads of the audit chain.
pub const AUDIT_KEY: &str = "audit_signing";

/// The running sealer. One per registry.
pub struct Sealing {
    stop: Arc<Notify>,
    head: watch::Receiver<i64>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Sealing {
    /// Starts sealing, what was left unsealed included.
    pub async fn start(store: Store, keyring: &Keyring) -> Result<Self, KeyringError> {
        let key = keyring.signing_key(AUDIT_KEY).await?;
        let stop = Arc::new(Notify::new());
        let (heads, head) = watch::channel(0);
        let task = tokio::spawn(run(store, key, heads, Arc::clone(&stop)));
        Ok(Self { stop, head, task: Mutex::new(Some(task)) })
    }

    /// The number of the last sealed event, as it grows; 0 while there is none or it is not yet read.
    pub fn head(&self) -> watch::Receiver<i64> {
        self.head.clone()
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

async fn run(store: Store, key: SigningKey, heads: watch::Sender<i64>, stop: Arc<Notify>) {
    let facts = store.facts();
    let mut stopping = false;
    loop {
        let sealed = seal_all(&store, &key, &heads).await;
        if let Err(error) = &sealed {
            tracing::warn!(%error, "facts cannot be sealed now");
        }
        if stopping {
            return;
        }
        tokio::select! {
            () = stop.notified() => stopping = true,
            () = facts.notified() => {}
            () = tokio::time::sleep(AFTER_FAILURE), if sealed.is_err() => {}
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

/// Seals until nothing is left.
async fn seal_all(store: &Store, key: &SigningKey, heads: &watch::Sender<i64>) -> Result<(), SealError> {
    // Read again each time: after a commit without an answer nobody knows what holds.
    let mut events = store.last_event_seq().await?;
    let mut link = store.last_link().await?;
    loop {
        heads.send_replace(events);
        let mut writes = Vec::new();
        for id in unsealed_events(store).await? {
            events += 1;
            writes.push(number("events", &id, columns! { "seq": events }));
        }
        let records = unsealed_audit(store).await?;
        for record in &records {
            link = link.next(record)?;
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
        store.commit(Unit::new(writes)).await?;
    }
}

/// Numbers a row that has no number.
fn number(table: &'static str, id: &str, set: Columns) -> Write {
    Write::update_if(table, columns! { "id": id }, columns! { "seq": () }, set)
}

async fn unsealed_events(store: &Store) -> Result<Vec<String>, ReadError> {
    let query = event::Entity::find().select_only().column(event::Column::Id);
    let query = query.filter(Expr::cust("seq IS NULL")).order_by_asc(event::Column::Id).limit(BATCH);
    Ok(query.into_tuple().all(store.reads()).await?)
}

async fn unsealed_audit(store: &Store) -> Result<Vec<audit::Model>, ReadError> {
    let query = audit::Entity::find().filter(Expr::cust("seq IS NULL"));
    Ok(query.order_by_asc(audit::Column::Id).limit(BATCH).all(store.reads()).await?)
}
