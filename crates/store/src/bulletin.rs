//! What the processes on one registry tell each other, by NOTIFY: hints, outside of the facts' transactions and several
//! at once. Each is repeated until the server has taken it; who may have missed some is told so, and looks for itself.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgListener, PgPool};
use tenantry_model::TenantId;
use tenantry_model::id::OperationId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::connection::{Address, open_for_hints};
use super::{ReadError, Store};

/// How long hints wait for others after the first.
const TOGETHER: Duration = Duration::from_millis(5);
/// Pause before a server that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(250);
/// How long a process waits at its end until the others are told.
const FLUSH: Duration = Duration::from_secs(2);
/// Every process says something at least so often.
const PULSE: Duration = Duration::from_secs(10);
/// Who has heard nothing for so long, not even itself, listens on a connection that is dead.
const DEAF: Duration = Duration::from_secs(25);
/// Most ids of a kind in one message, whose limit is 8,000 bytes.
const MOST: usize = 100;

/// Something that other processes should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Operations have changed, or want to go on.
    Operations(Vec<OperationId>),
    /// There are facts to be sealed.
    Facts,
    /// Events are sealed up to this number.
    Sealed(i64),
    /// These tenants' keys are destroyed: whoever has them in memory lets go of them.
    Erased(Vec<TenantId>),
    /// Nobody runs any more.
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

/// What is put on the board.
enum Item {
    News(News),
    /// Say when everything before this is sent.
    Flush(oneshot::Sender<()>),
}

/// Where a process puts what others should know. Nothing happens with it while nobody reads it.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<OnceLock<mpsc::UnboundedSender<Item>>>);

impl Board {
    fn put(&self, item: Item) {
        if let Some(board) = self.0.get() {
            // Its reader ends with the process.
            let _ = board.send(item);
        }
    }
}

/// The connection to the other processes. Dropped, it hears and sends nothing more.
pub struct Bulletin {
    board: Board,
    task: JoinHandle<()>,
}

impl Bulletin {
    /// Returns once everything that was told is sent, or cannot be for a while.
    pub async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        self.board.put(Item::Flush(done));
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
    /// Begins to tell and to hear. On PostgreSQL, once.
    pub async fn bulletin(&self) -> Result<(Bulletin, mpsc::UnboundedReceiver<News>), ReadError> {
        let Address::Postgres(options) = self.database.address() else {
            return Err(ReadError("a SQLite registry has one process".to_owned()));
        };
        let unreadable = |error: sqlx::Error| ReadError(error.to_string());
        let pool = open_for_hints(options).await.map_err(unreadable)?;
        let schema = sqlx::query_scalar("SELECT CAST(current_schema() AS text)").fetch_one(&pool).await;
        let schema: String = schema.map_err(unreadable)?;
        let channel = format!("tenantry:{schema}");
        let listener = listen(&pool, &channel).await.map_err(unreadable)?;
        let (board, told) = mpsc::unbounded_channel();
        let (hears, heard) = mpsc::unbounded_channel();
        if self.board.0.set(board).is_err() {
            return Err(ReadError("the registry has its bulletin already".to_owned()));
        }
        let me = uuid::Uuid::new_v4().to_string();
        let ear = Ear { pool: pool.clone(), channel: channel.clone(), me: me.clone(), hears };
        let tells = tell(pool, channel, told, me);
        let task = tokio::spawn(async move {
            tokio::join!(tells, ear.hear(listener));
        });
        Ok((Bulletin { board: self.board.clone(), task }, heard))
    }

    /// Tells the other processes, if there can be any.
    pub fn tell(&self, news: News) {
        self.board.put(Item::News(news));
    }
}

async fn tell(pool: PgPool, channel: String, mut told: mpsc::UnboundedReceiver<Item>, me: String) {
    loop {
        // Without news it sends nothing but itself, and hears that it is heard.
        let first = match tokio::time::timeout(PULSE, told.recv()).await {
            Ok(Some(first)) => Some(first),
            Ok(None) => return,
            Err(_) => None,
        };
        let pulse = first.is_none();
        let (mut message, mut flushed) = (Message::default(), Vec::new());
        if matches!(first, Some(Item::News(_))) {
            tokio::time::sleep(TOGETHER).await;
        }
        for item in first.into_iter().chain(std::iter::from_fn(|| told.try_recv().ok())) {
            match item {
                Item::News(news) => message.add(news),
                Item::Flush(done) => flushed.push(done),
            }
        }
        let mut pulse = pulse;
        while std::mem::take(&mut pulse) || !message.is_empty() {
            let piece = message.piece(&me);
            let Ok(text) = serde_json::to_string(&piece) else { continue };
            let notify = || sqlx::query("SELECT pg_notify($1, $2)").bind(&channel).bind(&text).execute(&pool);
            while let Err(error) = notify().await {
                tracing::debug!(%error, "other processes cannot be told now");
                tokio::time::sleep(AGAIN).await;
            }
        }
        for done in flushed {
            // Nobody waiting is fine.
            let _ = done.send(());
        }
    }
}

async fn listen(pool: &PgPool, channel: &str) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    // It is opened again here, where what was missed meanwhile is known of.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    Ok(listener)
}

/// What hears the other processes.
struct Ear {
    pool: PgPool,
    channel: String,
    me: String,
    hears: mpsc::UnboundedSender<News>,
}

impl Ear {
    async fn hear(self, mut listener: PgListener) {
        loop {
            let notification = match tokio::time::timeout(DEAF, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => notification,
                // The connection is gone, or nothing comes through it any more.
                Ok(Ok(None) | Err(_)) | Err(_) => {
                    drop(listener);
                    listener = self.again().await;
                    if self.hears.send(News::Missed).is_err() {
                        return;
                    }
                    continue;
                }
            };
            let news = match serde_json::from_str::<Message>(notification.payload()) {
                Ok(message) if message.from == self.me => continue,
                Ok(message) => message.news().collect(),
                // From a later version, perhaps: whoever reads it looks for itself.
                Err(_) => vec![News::Missed],
            };
            for news in news {
                if self.hears.send(news).is_err() {
                    return;
                }
            }
        }
    }

    async fn again(&self) -> PgListener {
        loop {
            match listen(&self.pool, &self.channel).await {
                Ok(listener) => return listener,
                Err(error) => tracing::debug!(%error, "other processes cannot be heard now"),
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
