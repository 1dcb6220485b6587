//! A pool of sessions to one database, opened when they are needed. A session that was left in the middle of a
//! statement is not used again.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::error::Error;
use crate::server::Server;
use crate::session::Session;
use crate::transaction::Transaction;

/// Time after the latest statement of a session for which the pool hands it out without a check.
const BELIEVED: Duration = Duration::from_millis(100);
/// Time after which a session is replaced by a new one.
const LIFE: Duration = Duration::from_secs(30 * 60);
/// Longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Function that runs on each new session, before its first use.
type Hook = Box<dyn for<'a> Fn(&'a mut Session) -> BoxFuture<'a, Result<(), Error>> + Send + Sync>;

/// Limits of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of sessions.
    pub sessions: u32,
    /// Time that a caller waits for a session.
    pub wait: Duration,
    /// Time for which an unused session is kept.
    pub idle: Duration,
}

/// A pool of sessions. Clones share it; the last one that is dropped cuts the idle sessions.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    server: Server,
    limits: Limits,
    prepare: Hook,
    idle: Mutex<Vec<Session>>,
    permits: Arc<Semaphore>,
    closed: AtomicBool,
    reaper: Once,
}

/// A session of a pool, to which it returns when it is dropped.
pub struct Pooled {
    session: Option<Session>,
    pool: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// A pool of sessions on which `prepare` has run. Does not connect.
    pub fn new(
        server: Server,
        limits: Limits,
        prepare: impl for<'a> Fn(&'a mut Session) -> BoxFuture<'a, Result<(), Error>> + Send + Sync + 'static,
    ) -> Self {
        let sessions = usize::try_from(limits.sessions.max(1)).unwrap_or(1);
        Self(Arc::new(Shared {
            server,
            limits,
            prepare: Box::new(prepare),
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(sessions)),
            closed: AtomicBool::new(false),
            reaper: Once::new(),
        }))
    }

    /// A session that answers. While the server refuses connections for now, tries again up to the time limit, and then
    /// returns the server's last refusal.
    pub async fn get(&self) -> Result<Pooled, Error> {
        let mut refusal = None;
        let found = async {
            let permit = self.0.permits.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
            if self.0.closed.load(Ordering::Relaxed) {
                return Err(Error::Closed);
            }
            let session = match self.0.idle_session().await {
                Some(session) => session,
                None => self.0.connect(&mut refusal).await?,
            };
            Ok(Pooled { session: Some(session), pool: self.0.clone(), _permit: permit })
        };
        let found = timeout(self.0.limits.wait, found).await;
        found.unwrap_or_else(|_| Err(refusal.unwrap_or(Error::Busy)))
    }

    /// Begins a transaction on a session of its own.
    pub async fn begin(&self) -> Result<Transaction<Pooled>, Error> {
        Transaction::begin(self.get().await?).await
    }

    /// Closes all sessions; waits for those that are in use.
    pub async fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
        let all = self.0.permits.acquire_many(self.0.limits.sessions.max(1)).await;
        self.0.permits.close();
        let idle = std::mem::take(&mut *self.0.idle.lock());
        join_all(idle.into_iter().map(Session::close)).await;
        drop(all);
    }
}

impl Shared {
    async fn idle_session(&self) -> Option<Session> {
        loop {
            let mut session = self.idle.lock().pop()?;
            let fresh = session.used().elapsed() < BELIEVED && !session.is_queued();
            if session.is_whole() && !self.is_expired(&session) && (fresh || session.answers().await) {
                return Some(session);
            }
        }
    }

    async fn connect(self: &Arc<Self>, refusal: &mut Option<Error>) -> Result<Session, Error> {
        self.reaper.call_once(|| drop(tokio::spawn(close_expired(Arc::downgrade(self)))));
        let mut pause = Duration::from_millis(10);
        loop {
            let opened = async {
                let mut session = Session::open(&self.server).await?;
                (self.prepare)(&mut session).await?;
                Ok::<_, Error>(session)
            };
            match opened.await {
                Err(error) if error.is_transient() => *refusal = Some(error),
                opened => return opened,
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn is_expired(&self, session: &Session) -> bool {
        session.used().elapsed() >= self.limits.idle || session.opened().elapsed() >= LIFE
    }
}

/// Closes sessions that were idle for too long, until the pool is dropped.
async fn close_expired(pool: std::sync::Weak<Shared>) {
    while let Some(shared) = pool.upgrade() {
        let expired: Vec<Session> =
            shared.idle.lock().extract_if(.., |session| shared.is_expired(session)).collect();
        join_all(expired.into_iter().map(Session::close)).await;
        let pause = shared.limits.idle / 4;
        drop(shared);
        sleep(pause).await;
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let whole = self.session.take().filter(Session::is_whole);
        if let Some(session) = whole.filter(|_| !self.pool.permits.is_closed()) {
            self.pool.idle.lock().push(session);
        }
    }
}

impl Deref for Pooled {
    type Target = Session;
    fn deref(&self) -> &Session {
        self.session.as_ref().unwrap_or_else(|| unreachable!("it is taken in drop"))
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Session {
        self.session.as_mut().unwrap_or_else(|| unreachable!("it is taken in drop"))
    }
}
