//! One of several processes on a registry: whether it runs operations and seals facts, or stands by (design §4).
//!
//! Whoever runs shows the database every second that it lives. Who stands by takes over when nobody has the registry's
//! lock, or when its holder has been silent too long: then it ends the holder's session first, with all that it had not
//! committed. Who runs and does not reach the database in time drops its work before anybody may take over.

use std::sync::Arc;
use std::time::Duration;

use tenantry_engine::{Executor, Ledger};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::operations::ProviderSteps;
use tenantry_store::keyring::Keyring;
use tenantry_store::{Bulletin, News, ReadError, Sealing, Store};

/// Between two signs of life, and between two looks at who runs.
const BEAT: Duration = Duration::from_secs(1);
/// How long whoever runs may be silent before its session is ended.
const SILENCE: Duration = Duration::from_secs(3);
/// How long whoever runs goes on without an answer from the database. Less than [`SILENCE`], or two would run.
const UNANSWERED: Duration = Duration::from_secs(2);
/// How long the database has to answer even if this process was late to ask: the lock is the session's, so nobody else
/// runs while that lives.
const ANSWER: Duration = Duration::from_millis(500);
/// Between two readings of the ledger for what hints have missed, such as one of a process that died before it gave it.
const LOOK: Duration = Duration::from_secs(30);

/// This process among the others.
pub struct Replica {
    runs: watch::Receiver<bool>,
    task: JoinHandle<()>,
    store: Store,
    bulletin: Bulletin,
}

struct Turns {
    store: Store,
    executor: Executor<ProviderSteps>,
    sealing: Arc<Sealing>,
    keyring: Arc<Keyring>,
    runs: watch::Sender<bool>,
    /// When the database last said that the lock is ours.
    answered: Instant,
    /// Reads the ledger.
    looks: JoinHandle<()>,
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.looks.abort();
    }
}

impl Replica {
    /// Stands by, and takes over as soon as it may. Fails if the registry cannot be heard.
    pub async fn start(
        store: Store,
        executor: Executor<ProviderSteps>,
        sealing: Arc<Sealing>,
        keyring: Arc<Keyring>,
    ) -> Result<Self, ReadError> {
        let (bulletin, news) = store.bulletin().await?;
        let (runs, watched) = watch::channel(false);
        let (answered, looks) = (Instant::now(), tokio::spawn(async {}));
        let turns = Turns { store: store.clone(), executor, sealing, keyring, runs, answered, looks };
        Ok(Self { runs: watched, task: tokio::spawn(turns.take(news)), store, bulletin })
    }

    /// Whether this process runs operations, as it changes.
    pub fn runs(&self) -> watch::Receiver<bool> {
        self.runs.clone()
    }

    /// Takes no more turns. Whoever runs goes on until its session ends.
    pub fn stop(&self) {
        self.task.abort();
    }

    /// Ends the writer's session, so that another may run at once, and says what it had still to say.
    pub async fn leave(&self) {
        if *self.runs.borrow() && self.store.resign().await.is_ok() {
            self.store.tell(News::Vacant);
        }
        self.bulletin.flush().await;
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Turns {
    async fn take(mut self, mut news: mpsc::UnboundedReceiver<News>) {
        let mut leads = self.store.leads();
        let (mut beat, mut look) = (interval(BEAT), interval(LOOK));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.read_head().await;
        loop {
            let runs = *self.runs.borrow();
            tokio::select! {
                _ = beat.tick() => if runs { self.beat().await } else { self.try_to_run().await },
                // The session was lost, and another had the lock before it came back.
                Ok(()) = leads.changed(), if runs => if !*leads.borrow() { self.stand_by().await },
                _ = look.tick() => self.look().await,
                news = news.recv() => match news {
                    Some(news) => self.hear(news).await,
                    None => return,
                },
            }
        }
    }

    async fn hear(&mut self, news: News) {
        let runs = *self.runs.borrow();
        match news {
            News::Operations(ids) => ids.into_iter().for_each(|id| self.executor.heard(id)),
            News::Facts if runs => self.sealing.heard_of_facts(),
            News::Facts => {}
            News::Sealed(head) => self.sealing.heard_of_head(head),
            News::Erased(tenants) => tenants.into_iter().for_each(|tenant| self.keyring.let_go(tenant)),
            News::Vacant if !runs => self.try_to_run().await,
            News::Vacant => {}
            News::Missed => {
                self.keyring.let_go_of_all();
                self.look().await;
            }
        }
    }

    async fn read_head(&self) {
        match self.store.last_event_seq().await {
            Ok(head) => self.sealing.heard_of_head(head),
            Err(error) => tracing::debug!(%error, "the last event is not known"),
        }
    }

    /// Looks for what news may have been missed of. Whoever runs reads the ledger beside its signs of life, however
    /// long that takes.
    async fn look(&mut self) {
        if !*self.runs.borrow() {
            self.executor.heard_of_all();
            return self.read_head().await;
        }
        self.sealing.heard_of_facts();
        if self.looks.is_finished() {
            self.looks = tokio::spawn(look(self.executor.clone()));
        }
    }

    async fn try_to_run(&mut self) {
        // Who knows that the registry went back in time leaves it alone.
        if let Err(error) = Ledger::epoch(&self.store).await {
            return tracing::warn!(%error, "the registry does not say who runs");
        }
        let began = Instant::now();
        match self.store.lead().await {
            Ok(true) => return self.run(began).await,
            Ok(false) => {}
            Err(error) => return tracing::warn!(%error, "the registry does not say who runs"),
        }
        let silent = match self.store.holder().await {
            Ok(holder) => holder.filter(|holder| holder.silent > SILENCE),
            Err(error) => return tracing::warn!(%error, "the registry does not say who runs"),
        };
        let Some(holder) = silent else { return };
        tracing::warn!(silent_ms = holder.silent.as_millis(), "who runs is silent; its session is ended");
        if let Err(error) = self.store.evict(holder).await {
            return tracing::warn!(%error, "its session cannot be ended");
        }
        let began = Instant::now();
        if let Ok(true) = self.store.lead().await {
            self.run(began).await;
        }
    }

    async fn run(&mut self, answered: Instant) {
        self.answered = answered;
        if let Err(error) = self.executor.take_over().await {
            tracing::warn!(%error, "this process cannot run operations now");
            // Another may.
            let _ = self.store.resign().await;
            return;
        }
        self.sealing.set(true);
        self.runs.send_replace(true);
        tracing::info!("this process runs operations now");
        self.look().await;
    }

    async fn beat(&mut self) {
        let asked = Instant::now();
        match timeout_at((self.answered + UNANSWERED).max(asked + ANSWER), self.store.beat()).await {
            // With another epoch somebody has run in between: our commits are refused, and we begin anew.
            Ok(Ok(Some(epoch))) if epoch == self.executor.epoch() => self.answered = asked,
            Ok(Ok(_)) => self.stand_by().await,
            Ok(Err(error)) if self.answered.elapsed() < UNANSWERED => {
                tracing::warn!(%error, "the registry did not take a sign of life");
            }
            Ok(Err(_)) | Err(_) => self.stand_by().await,
        }
    }

    async fn stand_by(&mut self) {
        tracing::warn!("this process runs operations no more, as another may; it stands by");
        self.runs.send_replace(false);
        self.sealing.set(false);
        self.executor.stand_by().await;
        // A session that hangs is ended by whoever takes over.
        let _ = tokio::time::timeout(UNANSWERED, self.store.resign()).await;
        // What others said meanwhile was taken for something to run.
        self.look().await;
    }
}

/// Reads the ledger until that succeeds, or somebody else runs.
async fn look(executor: Executor<ProviderSteps>) {
    while executor.is_running()
        && let Err(error) = executor.look().await
    {
        tracing::warn!(%error, "the ledger cannot be looked through now");
        tokio::time::sleep(BEAT).await;
    }
}
