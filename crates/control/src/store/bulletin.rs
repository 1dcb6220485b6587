//! What the processes on one registry tell each other, by NOTIFY: hints, outside of the facts' transactions and several
//! at once. Each is repeated until the server has taken it; who may have missed some is told so, and looks for itself.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgListener, PgPool};
use tenantry_model::id::OperationId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::connection::{Address, open_for_hints};
use super::{ReadError, Store};

/// How long hints wait for others after the first.
const TOGETHER: Duration = Duration::from_millis(5);
/// Pause before a server that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(250);
/// Most operations in one message, whose limit is 8,000 bytes.
const MOST: usize = 200;

/// Something that other processes should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Operations have changed, or want to go on.
    Operations(Vec<OperationId>),
    /// There are facts to be sealed.
    Facts,
    /// Events are sealed up to this number.
    Sealed(i64),
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
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    vacant: bool,
}

impl Message {
    fn add(&mut self, news: News) {
        match news {
            News::Operations(ids) => self.operations.extend(ids),
            News::Facts => self.facts = true,
            News::Sealed(head) => self.sealed = self.sealed.max(Some(head)),
            News::Vacant => self.vacant = true,
            News::Missed => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.operations.is_empty() && !self.facts && self.sealed.is_none() && !self.vacant
    }

    /// A piece that is not too long; the rest stays.
    fn piece(&mut self, from: &str) -> Self {
        let mut operations = std::mem::take(&mut self.operations);
        if let Some(first) = operations.iter().nth(MOST).copied() {
            self.operations = operations.split_off(&first);
        }
        let rest = std::mem::take(&mut self.operations);
        let piece = Self { from: from.to_owned(), operations, ..std::mem::take(self) };
        self.operations = rest;
        piece
    }

    fn news(self) -> impl Iterator<Item = News> {
        let operations =
            (!self.operations.is_empty()).then(|| News::Operations(self.operations.into_iter().collect()));
        let (facts, vacant) = (self.facts.then_some(News::Facts), self.vacant.then_some(News::Vacant));
        operations.into_iter().chain(facts).chain(self.sealed.map(News::Sealed)).chain(vacant)
    }
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
    /// Tells something, and returns once it is sent.
    pub async fn tell_at_last(&self, news: News) {
        let (done, sent) = oneshot::channel();
        self.board.put(Item::News(news));
        self.board.put(Item::Flush(done));
        // A reader that is gone sends nothing more.
        let _ = sent.await;
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
        let mut listener = PgListener::connect_with(&pool).await.map_err(unreadable)?;
        listener.listen(&channel).await.map_err(unreadable)?;
        let (board, told) = mpsc::unbounded_channel();
        let (hears, heard) = mpsc::unbounded_channel();
        if self.board.0.set(board).is_err() {
            return Err(ReadError("the registry has its bulletin already".to_owned()));
        }
        let me = uuid::Uuid::new_v4().to_string();
        let tells = tell(pool, channel, told, me.clone());
        let task = tokio::spawn(async move {
            tokio::join!(tells, hear(listener, hears, me));
        });
        Ok((Bulletin { board: self.board.clone(), task }, heard))
    }

    /// Tells the other processes, if there can be any.
    pub(crate) fn tell(&self, news: News) {
        self.board.put(Item::News(news));
    }
}

async fn tell(pool: PgPool, channel: String, mut told: mpsc::UnboundedReceiver<Item>, me: String) {
    while let Some(first) = told.recv().await {
        let (mut message, mut flushed) = (Message::default(), Vec::new());
        if matches!(first, Item::News(_)) {
            tokio::time::sleep(TOGETHER).await;
        }
        for item in std::iter::once(first).chain(std::iter::from_fn(|| told.try_recv().ok())) {
            match item {
                Item::News(news) => message.add(news),
                Item::Flush(done) => flushed.push(done),
            }
        }
        while !message.is_empty() {
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

async fn hear(mut listener: PgListener, hears: mpsc::UnboundedSender<News>, me: String) {
    loop {
        let news = match listener.try_recv().await {
            Ok(Some(notification)) => match serde_json::from_str::<Message>(notification.payload()) {
                Ok(message) if message.from == me => continue,
                Ok(message) => message.news().collect(),
                // From a later version, perhaps: whoever reads it looks for itself.
                Err(_) => vec![News::Missed],
            },
            // The connection was lost; the next call opens another.
            Ok(None) => vec![News::Missed],
            Err(error) => {
                tracing::debug!(%error, "other processes cannot be heard now");
                tokio::time::sleep(AGAIN).await;
                vec![News::Missed]
            }
        };
        for news in news {
            if hears.send(news).is_err() {
                return;
            }
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
