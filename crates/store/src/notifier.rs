//! Notifies the other processes on one registry with NOTIFY. Notifications are hints: they are sent outside of the
//! transactions that they are about, several in one message. The notifier repeats a message until the server accepts it.
//! A process that may have missed some receives [`Notification::Missed`] and reads the registry instead.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenantry_model::TenantId;
use tenantry_model::id::OperationId;
use tenantry_postgres::Server;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::address::Address;
use super::failed::Failed;
use super::postgres::{Access, Session};
use super::query::Parameter;
use super::{ReadError, Store};

/// Time in which notifications are collected into one message.
const COLLECT: Duration = Duration::from_millis(5);
/// Pause before the next attempt to reach the server.
const RETRY: Duration = Duration::from_millis(250);
/// Time limit for sending a message and for starting a listener.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the last notifications when a process ends.
const FLUSH: Duration = Duration::from_secs(2);
/// Longest time between two messages of a process.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A listener that receives nothing for so long, not even its own process's heartbeat, is on a dead connection.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(25);
/// Most ids of each kind in one message; PostgreSQL limits a message to 8,000 bytes.
const MOST: usize = 100;

/// A notification to the other processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// Operations that have changed or can continue.
    Operations(Vec<OperationId>),
    /// There are events or audit records that have no number yet.
    Unsealed,
    /// Events have numbers up to this one.
    Sealed(i64),
    /// Tenants whose keys are destroyed: a process that has them in memory removes them.
    Erased(Vec<TenantId>),
    /// The leader has ended.
    Vacant,
    /// Notifications may have been lost.
    Missed,
}

/// A message of NOTIFY.
#[derive(Default, Serialize, Deserialize)]
struct Message {
    from: String,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    operations: BTreeSet<OperationId>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unsealed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<i64>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    erased: BTreeSet<TenantId>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    vacant: bool,
}

impl Message {
    fn add(&mut self, notification: Notification) {
        match notification {
            Notification::Operations(ids) => self.operations.extend(ids),
            Notification::Unsealed => self.unsealed = true,
            Notification::Sealed(head) => self.sealed = self.sealed.max(Some(head)),
            Notification::Erased(tenants) => self.erased.extend(tenants),
            Notification::Vacant => self.vacant = true,
            Notification::Missed => {}
        }
    }

    fn is_empty(&self) -> bool {
        let idle = self.sealed.is_none() && self.erased.is_empty() && !self.vacant;
        self.operations.is_empty() && !self.unsealed && idle
    }

    /// Takes a part that is not longer than a message may be.
    fn piece(&mut self, from: &str) -> Self {
        let (operations, more) = cut(std::mem::take(&mut self.operations));
        let (erased, more_erased) = cut(std::mem::take(&mut self.erased));
        let piece = Self { from: from.to_owned(), operations, erased, ..std::mem::take(self) };
        (self.operations, self.erased) = (more, more_erased);
        piece
    }

    fn notifications(self) -> impl Iterator<Item = Notification> {
        let operations = (!self.operations.is_empty())
            .then(|| Notification::Operations(self.operations.into_iter().collect()));
        let (unsealed, vacant) =
            (self.unsealed.then_some(Notification::Unsealed), self.vacant.then_some(Notification::Vacant));
        let erased =
            (!self.erased.is_empty()).then(|| Notification::Erased(self.erased.into_iter().collect()));
        let sealed = self.sealed.map(Notification::Sealed);
        operations.into_iter().chain(unsealed).chain(sealed).chain(erased).chain(vacant)
    }
}

/// The ids for one message, and the rest.
fn cut<T: Copy + Ord>(mut all: BTreeSet<T>) -> (BTreeSet<T>, BTreeSet<T>) {
    let first = all.iter().nth(MOST).copied();
    let rest = first.map(|first| all.split_off(&first)).unwrap_or_default();
    (all, rest)
}

/// An order to the notifier's task.
enum Item {
    Notification(Notification),
    /// Reports when everything before this is sent.
    Flush(oneshot::Sender<()>),
}

/// The queue of a process's notifications; dropped while no notifier runs.
#[derive(Clone, Default)]
pub(super) struct Outbox(Arc<OnceLock<mpsc::UnboundedSender<Item>>>);

impl Outbox {
    fn put(&self, item: Item) {
        if let Some(outbox) = self.0.get() {
            // The task that reads the queue ends with the process.
            let _ = outbox.send(item);
        }
    }
}

/// The connection to the other processes; it ends when this is dropped.
pub struct Notifier {
    outbox: Outbox,
    task: JoinHandle<()>,
}

impl Notifier {
    /// Returns when every notification is sent, at the latest after a time limit.
    pub async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        self.outbox.put(Item::Flush(done));
        // If the task has ended, nothing more is sent.
        let _ = tokio::time::timeout(FLUSH, sent).await;
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    /// Starts to send and to receive notifications. Only on PostgreSQL, and once per store.
    pub async fn notifier(&self) -> Result<(Notifier, mpsc::UnboundedReceiver<Notification>), ReadError> {
        let Address::Postgres(server) = self.database.address() else {
            return Err(ReadError("a SQLite registry has one process".to_owned()));
        };
        let mut session = Session::open(server, Access::Write).await?;
        let schema = session.ask("SELECT current_schema()").await?.unwrap_or_default();
        let peers = Peers {
            server: (**server).clone(),
            channel: format!("tenantry:{schema}"),
            me: uuid::Uuid::new_v4().to_string(),
        };
        let listener = peers.listen().await?;
        let (outbox, waiting) = mpsc::unbounded_channel();
        let (sender, received) = mpsc::unbounded_channel();
        if self.outbox.0.set(outbox).is_err() {
            return Err(ReadError("the registry has its notifier already".to_owned()));
        }
        let task = tokio::spawn(async move {
            tokio::join!(peers.notify(session, waiting), peers.receive(listener, sender));
        });
        Ok((Notifier { outbox: self.outbox.clone(), task }, received))
    }

    /// Notifies the other processes; does nothing on SQLite.
    pub fn notify(&self, notification: Notification) {
        self.outbox.put(Item::Notification(notification));
    }
}

/// The other processes on the registry.
struct Peers {
    server: Server,
    channel: String,
    me: String,
}

/// Limits work on a session to [`TIMEOUT`]: a connection whose other end has vanished would block until TCP gives up.
async fn in_time<T>(work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(Failed::no_answer()))
}

/// A session that listens, and the messages that it receives.
type Listener = (Session, mpsc::UnboundedReceiver<String>);

impl Peers {
    async fn notify(&self, session: Session, mut waiting: mpsc::UnboundedReceiver<Item>) {
        let mut session = Some(session);
        loop {
            // Without notifications it sends an empty message, which its own listener receives as a heartbeat.
            let first = match tokio::time::timeout(HEARTBEAT, waiting.recv()).await {
                Ok(Some(first)) => Some(first),
                Ok(None) => return,
                Err(_) => None,
            };
            let mut heartbeat = first.is_none();
            let (mut message, mut flushed) = (Message::default(), Vec::new());
            if matches!(first, Some(Item::Notification(_))) {
                tokio::time::sleep(COLLECT).await;
            }
            for item in first.into_iter().chain(std::iter::from_fn(|| waiting.try_recv().ok())) {
                match item {
                    Item::Notification(notification) => message.add(notification),
                    Item::Flush(done) => flushed.push(done),
                }
            }
            while std::mem::take(&mut heartbeat) || !message.is_empty() {
                let piece = message.piece(&self.me);
                let Ok(text) = serde_json::to_string(&piece) else { continue };
                while let Err(failed) = self.send(&mut session, &text).await {
                    tracing::debug!(error = failed.message, "cannot send notifications");
                    tokio::time::sleep(RETRY).await;
                }
            }
            for done in flushed {
                // The receiver may have stopped waiting.
                let _ = done.send(());
            }
        }
    }

    /// Sends a message by the session, or by a new one, within the time limit.
    async fn send(&self, session: &mut Option<Session>, text: &str) -> Result<(), Failed> {
        in_time(self.try_to_send(session, text)).await
    }

    async fn try_to_send(&self, session: &mut Option<Session>, text: &str) -> Result<(), Failed> {
        let mut open = match session.take() {
            Some(open) => open,
            None => Session::open(&self.server, Access::Write).await?,
        };
        let values = [Parameter::from(self.channel.as_str()), Parameter::from(text)];
        open.query("SELECT pg_notify($1, $2)", &values).await?;
        *session = Some(open);
        Ok(())
    }

    async fn listen(&self) -> Result<Listener, Failed> {
        in_time(self.try_to_listen()).await
    }

    async fn try_to_listen(&self) -> Result<Listener, Failed> {
        let (sender, received) = mpsc::unbounded_channel();
        let mut session = Session::open_and_hear(&self.server, Access::Write, Some(sender)).await?;
        session.execute(&format!("LISTEN \"{}\"", self.channel.replace('"', "\"\""))).await?;
        Ok((session, received))
    }

    async fn receive(&self, mut listener: Listener, sender: mpsc::UnboundedSender<Notification>) {
        loop {
            let Ok(Some(text)) = tokio::time::timeout(LISTEN_TIMEOUT, listener.1.recv()).await else {
                // The connection is closed or dead.
                drop(listener);
                listener = self.listen_anew().await;
                if sender.send(Notification::Missed).is_err() {
                    return;
                }
                continue;
            };
            let notifications = match serde_json::from_str::<Message>(&text) {
                Ok(message) if message.from == self.me => continue,
                Ok(message) => message.notifications().collect(),
                // A message of a later version.
                Err(_) => vec![Notification::Missed],
            };
            for notification in notifications {
                if sender.send(notification).is_err() {
                    return;
                }
            }
        }
    }

    async fn listen_anew(&self) -> Listener {
        loop {
            match self.listen().await {
                Ok(listener) => return listener,
                Err(failed) => tracing::debug!(error = failed.message, "cannot listen for notifications"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_short_and_lose_nothing() {
        let ids: BTreeSet<OperationId> = (0..1_000).map(|_| OperationId::new()).collect();
        let mut message = Message::default();
        for notification in [
            Notification::Operations(ids.iter().copied().collect()),
            Notification::Unsealed,
            Notification::Sealed(7),
            Notification::Sealed(3),
            Notification::Vacant,
        ] {
            message.add(notification);
        }
        let mut received = Vec::new();
        while !message.is_empty() {
            let text = serde_json::to_string(&message.piece("me")).unwrap();
            assert!(text.len() < 8_000, "{}", text.len());
            received.extend(serde_json::from_str::<Message>(&text).unwrap().notifications());
        }
        let operations = received.iter().filter_map(|notification| match notification {
            Notification::Operations(ids) => Some(ids),
            _ => None,
        });
        assert_eq!(operations.flatten().copied().collect::<BTreeSet<_>>(), ids);
        let others: Vec<_> = received
            .iter()
            .filter(|notification| !matches!(notification, Notification::Operations(_)))
            .collect();
        assert_eq!(others, [&Notification::Unsealed, &Notification::Sealed(7), &Notification::Vacant]);
    }
}
