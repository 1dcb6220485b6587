//! The notifier: what the processes on one registry tell each other, by NOTIFY. Notifications are hints, outside of the
//! transactions that they are about and several at once. Each is repeated until the server has taken it; a process that
//! may have missed some is told so, and reads the registry instead.

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

/// How long notifications wait for others after the first.
const TOGETHER: Duration = Duration::from_millis(5);
/// Pause before a server that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(250);
/// How long the server may take to accept a message or a listener.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a process waits at its end until its notifications are sent.
const FLUSH: Duration = Duration::from_secs(2);
/// Every process notifies at least so often.
const PULSE: Duration = Duration::from_secs(10);
/// A process that has heard nothing for so long, not even itself, listens on a connection that is dead.
const SILENCE: Duration = Duration::from_secs(25);
/// Most ids of a kind in one message, whose limit is 8,000 bytes.
const MOST: usize = 100;

/// Something that other processes should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Operations have changed, or want to go on.
    Operations(Vec<OperationId>),
    /// There are events or audit records to be sealed.
    Facts,
    /// Events are sealed up to this number.
    Sealed(i64),
    /// These tenants' keys are destroyed: processes that have them in memory remove them.
    Erased(Vec<TenantId>),
    /// There is no leader any more.
    Vacant,
    /// Some of all this may have been lost.
    Missed,
}

/// As it is sent.
#[derive(Default, Serialize, Deserialize)]
struct Message {
    from: String,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    operations: BTreeSet<OperationId>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    facts: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<i64>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    erased: BTreeSet<TenantId>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    vacant: bool,
}

impl Message {
    fn add(&mut self, news: News) {
        match news {
            News::Operations(ids) => self.operations.extend(ids),
            News::Facts => self.facts = true,
            News::Sealed(head) => self.sealed = self.sealed.max(Some(head)),
            News::Erased(tenants) => self.erased.extend(tenants),
            News::Vacant => self.vacant = true,
            News::Missed => {}
        }
    }

    fn is_empty(&self) -> bool {
        let idle = self.sealed.is_none() && self.erased.is_empty() && !self.vacant;
        self.operations.is_empty() && !self.facts && idle
    }

    /// A piece that is not too long; the rest stays.
    fn piece(&mut self, from: &str) -> Self {
        let (operations, more) = cut(std::mem::take(&mut self.operations));
        let (erased, more_erased) = cut(std::mem::take(&mut self.erased));
        let piece = Self { from: from.to_owned(), operations, erased, ..std::mem::take(self) };
        (self.operations, self.erased) = (more, more_erased);
        piece
    }

    fn news(self) -> impl Iterator<Item = News> {
        let operations =
            (!self.operations.is_empty()).then(|| News::Operations(self.operations.into_iter().collect()));
        let (facts, vacant) = (self.facts.then_some(News::Facts), self.vacant.then_some(News::Vacant));
        let erased = (!self.erased.is_empty()).then(|| News::Erased(self.erased.into_iter().collect()));
        let sealed = self.sealed.map(News::Sealed);
        operations.into_iter().chain(facts).chain(sealed).chain(erased).chain(vacant)
    }
}

/// What goes into one message, and the rest.
fn cut<T: Copy + Ord>(mut all: BTreeSet<T>) -> (BTreeSet<T>, BTreeSet<T>) {
    let first = all.iter().nth(MOST).copied();
    let rest = first.map(|first| all.split_off(&first)).unwrap_or_default();
    (all, rest)
}

/// What is handed to the notifier.
enum Item {
    News(News),
    /// Say when everything before this is sent.
    Flush(oneshot::Sender<()>),
}

/// Where a process puts its notifications. They go nowhere before the notifier is started.
#[derive(Clone, Default)]
pub(super) struct Outbox(Arc<OnceLock<mpsc::UnboundedSender<Item>>>);

impl Outbox {
    fn put(&self, item: Item) {
        if let Some(outbox) = self.0.get() {
            // Its reader ends with the process.
            let _ = outbox.send(item);
        }
    }
}

/// The connection to the other processes. Dropped, it hears and sends nothing more.
pub struct Bulletin {
    outbox: Outbox,
    task: JoinHandle<()>,
}

impl Bulletin {
    /// Returns once every notification is sent, or cannot be for a while.
    pub async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        self.outbox.put(Item::Flush(done));
        // A reader that is gone sends nothing more.
        let _ = tokio::time::timeout(FLUSH, sent).await;
    }
}

impl Drop for Bulletin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    /// Begins to notify and to listen. On PostgreSQL, once.
    pub async fn bulletin(&self) -> Result<(Bulletin, mpsc::UnboundedReceiver<News>), ReadError> {
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
        let (hears, heard) = mpsc::unbounded_channel();
        if self.outbox.0.set(outbox).is_err() {
            return Err(ReadError("the registry has its notifier already".to_owned()));
        }
        let task = tokio::spawn(async move {
            tokio::join!(peers.notify(session, waiting), peers.hear(listener, hears));
        });
        Ok((Bulletin { outbox: self.outbox.clone(), task }, heard))
    }

    /// Notifies the other processes, if there can be any.
    pub fn tell(&self, news: News) {
        self.outbox.put(Item::News(news));
    }
}

/// The other processes on the registry.
struct Peers {
    server: Server,
    channel: String,
    me: String,
}

/// What this does, unless the server is silent for too long: a connection whose other end has gone without a word would
/// be waited for until TCP gives up.
async fn in_time<T>(work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::time::timeout(ANSWER, work).await.unwrap_or_else(|_| Err(Failed::no_answer()))
}

/// A session that listens, and what it hears.
type Listener = (Session, mpsc::UnboundedReceiver<String>);

impl Peers {
    async fn notify(&self, session: Session, mut waiting: mpsc::UnboundedReceiver<Item>) {
        let mut session = Some(session);
        loop {
            // When there is nothing to say it sends nothing but itself, and hears that it is heard.
            let first = match tokio::time::timeout(PULSE, waiting.recv()).await {
                Ok(Some(first)) => Some(first),
                Ok(None) => return,
                Err(_) => None,
            };
            let mut pulse = first.is_none();
            let (mut message, mut flushed) = (Message::default(), Vec::new());
            if matches!(first, Some(Item::News(_))) {
                tokio::time::sleep(TOGETHER).await;
            }
            for item in first.into_iter().chain(std::iter::from_fn(|| waiting.try_recv().ok())) {
                match item {
                    Item::News(news) => message.add(news),
                    Item::Flush(done) => flushed.push(done),
                }
            }
            while std::mem::take(&mut pulse) || !message.is_empty() {
                let piece = message.piece(&self.me);
                let Ok(text) = serde_json::to_string(&piece) else { continue };
                while let Err(failed) = self.send(&mut session, &text).await {
                    tracing::debug!(error = failed.message, "other processes cannot be notified now");
                    tokio::time::sleep(AGAIN).await;
                }
            }
            for done in flushed {
                // The process may have stopped waiting.
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
        let (hears, heard) = mpsc::unbounded_channel();
        let mut session = Session::open_and_hear(&self.server, Access::Write, Some(hears)).await?;
        session.execute(&format!("LISTEN \"{}\"", self.channel.replace('"', "\"\""))).await?;
        Ok((session, heard))
    }

    async fn hear(&self, mut listener: Listener, hears: mpsc::UnboundedSender<News>) {
        loop {
            let Ok(Some(text)) = tokio::time::timeout(SILENCE, listener.1.recv()).await else {
                // The connection is gone, or nothing comes through it any more.
                drop(listener);
                listener = self.listen_again().await;
                if hears.send(News::Missed).is_err() {
                    return;
                }
                continue;
            };
            let news = match serde_json::from_str::<Message>(&text) {
                Ok(message) if message.from == self.me => continue,
                Ok(message) => message.news().collect(),
                // From a later version, perhaps.
                Err(_) => vec![News::Missed],
            };
            for news in news {
                if hears.send(news).is_err() {
                    return;
                }
            }
        }
    }

    async fn listen_again(&self) -> Listener {
        loop {
            match self.listen().await {
                Ok(listener) => return listener,
                Err(failed) => tracing::debug!(error = failed.message, "other processes cannot be heard now"),
            }
            tokio::time::sleep(AGAIN).await;
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
        for news in [
            News::Operations(ids.iter().copied().collect()),
            News::Facts,
            News::Sealed(7),
            News::Sealed(3),
            News::Vacant,
        ] {
            message.add(news);
        }
        let mut heard = Vec::new();
        while !message.is_empty() {
            let text = serde_json::to_string(&message.piece("me")).unwrap();
            assert!(text.len() < 8_000, "{}", text.len());
            heard.extend(serde_json::from_str::<Message>(&text).unwrap().news());
        }
        let operations = heard.iter().filter_map(|news| match news {
            News::Operations(ids) => Some(ids),
            _ => None,
        });
        assert_eq!(operations.flatten().copied().collect::<BTreeSet<_>>(), ids);
        let others: Vec<_> = heard.iter().filter(|news| !matches!(news, News::Operations(_))).collect();
        assert_eq!(others, [&News::Facts, &News::Sealed(7), &News::Vacant]);
    }
}
