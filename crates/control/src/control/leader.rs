//! Leader election among the processes on one registry: the leader runs operations, background tasks and the sealing of
//! events; the others are standbys.
//!
//! The leader writes a heartbeat to the database every second. A standby takes over when the registry's lock is free, or
//! when its holder has sent no heartbeat within the lease timeout: then it ends the holder's session first, with
//! everything that was not committed. A leader that does not reach the database in time stops its work before a standby
//! may take over.

use std::sync::Arc;
use std::time::Duration;

use tenantry_engine::{Executor, Ledger};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::control::ProviderSteps;
use crate::resource::Resources;
use tenantry_store::keyring::Keyring;
use tenantry_store::{Notification, Notifier, ReadError, Sealing, Store};

/// Time between two heartbeats, and between two attempts of a standby to take over.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Time without a heartbeat after which a standby ends the leader's session.
const LEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// Time without an answer from the database after which the leader stops its work. Shorter than [`LEASE_TIMEOUT`], so that
/// there are never two leaders.
const STEP_DOWN_AFTER: Duration = Duration::from_secs(2);
/// Time that the database has to answer a heartbeat that was sent late: the lock belongs to the session, so no other process
/// leads while the session lives.
const LATE_ANSWER: Duration = Duration::from_millis(500);
/// Time between two readings of the ledger for operations whose notification was lost, such as that of a process that died
/// before it sent it.
const READ_LEDGER: Duration = Duration::from_secs(30);

/// This process as a candidate for leadership.
pub struct Replica {
    runs: watch::Receiver<bool>,
    task: JoinHandle<()>,
    store: Store,
    notifier: Notifier,
}

/// The task that takes part in the election, with what a change of the leader starts and stops.
struct Election {
    store: Store,
    executor: Executor<ProviderSteps>,
    sealing: Arc<Sealing>,
    keyring: Arc<Keyring>,
    resources: Arc<Resources>,
    runs: watch::Sender<bool>,
    /// When the database last confirmed that this process holds the lock.
    answered: Instant,
    /// Task that reads the ledger.
    ledger_reading: JoinHandle<()>,
}

impl Drop for Election {
    fn drop(&mut self) {
        self.ledger_reading.abort();
    }
}

impl Replica {
    /// Starts as a standby, and takes over as soon as it may. Returns an error if notifications cannot be received.
    pub async fn start(
        store: Store,
        executor: Executor<ProviderSteps>,
        sealing: Arc<Sealing>,
        keyring: Arc<Keyring>,
        resources: Arc<Resources>,
    ) -> Result<Self, ReadError> {
        let (notifier, notifications) = store.notifier().await?;
        let (runs, watched) = watch::channel(false);
        let (answered, ledger_reading) = (Instant::now(), tokio::spawn(async {}));
        let election = Election {
            store: store.clone(),
            executor,
            sealing,
            keyring,
            resources,
            runs,
            answered,
            ledger_reading,
        };
        Ok(Self { runs: watched, task: tokio::spawn(election.take(notifications)), store, notifier })
    }

    /// Whether this process is the leader, as it changes.
    pub fn runs(&self) -> watch::Receiver<bool> {
        self.runs.clone()
    }

    /// Stops the election. A leader remains one until its session ends.
    pub fn stop(&self) {
        self.task.abort();
    }

    /// Ends the writer's session, so that a standby takes over at once, and sends the remaining notifications.
    pub async fn leave(&self) {
        if *self.runs.borrow() && self.store.resign().await.is_ok() {
            self.store.notify(Notification::Vacant);
        }
        self.notifier.flush().await;
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Election {
    /// Runs until the process stops: sends heartbeats or tries to take over, and handles notifications.
    async fn take(mut self, mut notifications: mpsc::UnboundedReceiver<Notification>) {
        let mut leads = self.store.leads();
        let (mut heartbeats, mut readings) = (interval(HEARTBEAT), interval(READ_LEDGER));
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        readings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.read_head().await;
        loop {
            let runs = *self.runs.borrow();
            tokio::select! {
                _ = heartbeats.tick() => if runs { self.heartbeat().await } else { self.try_to_run().await },
                // The session was lost, and another process had the lock before it was restored.
                Ok(()) = leads.changed(), if runs => if !*leads.borrow() { self.stand_by().await },
                _ = readings.tick() => self.read_ledger().await,
                notification = notifications.recv() => match notification {
                    Some(notification) => self.receive(notification).await,
                    None => return,
                },
            }
        }
    }

    /// Passes a notification of another process to the part of this process that it concerns.
    async fn receive(&mut self, notification: Notification) {
        let runs = *self.runs.borrow();
        match notification {
            Notification::Operations(ids) => ids.into_iter().for_each(|id| self.executor.notice(id)),
            Notification::Unsealed if runs => self.sealing.notice_unsealed(),
            Notification::Unsealed => {}
            Notification::Sealed(head) => self.sealing.notice_head(head),
            Notification::Erased(tenants) => {
                tenants.into_iter().for_each(|tenant| self.keyring.evict(tenant))
            }
            Notification::Vacant if !runs => self.try_to_run().await,
            Notification::Vacant => {}
            Notification::Missed => {
                self.keyring.evict_all();
                self.read_ledger().await;
            }
        }
    }

    /// Reads the number of the last event, which event streams wait for.
    async fn read_head(&self) {
        match self.store.last_event_seq().await {
            Ok(head) => self.sealing.notice_head(head),
            Err(error) => tracing::debug!(%error, "cannot read the last event"),
        }
    }

    /// Reads the changes whose notifications may have been lost. The leader reads the ledger in a separate
    /// task, so that heartbeats do not wait for it.
    async fn read_ledger(&mut self) {
        if !*self.runs.borrow() {
            self.executor.notice_all();
            return self.read_head().await;
        }
        self.sealing.notice_unsealed();
        if self.ledger_reading.is_finished() {
            self.ledger_reading = tokio::spawn(read_ledger(self.executor.clone()));
        }
    }

    /// Takes the lock and becomes the leader, if the lock is free or its holder has sent no heartbeat for too long.
    async fn try_to_run(&mut self) {
        // This read fails if the registry was restored to an earlier state: then this process must not lead.
        if let Err(error) = Ledger::epoch(&self.store).await {
            return tracing::warn!(%error, "cannot read the leader lock");
        }
        let began = Instant::now();
        match self.store.lead().await {
            Ok(true) => return self.run(began).await,
            Ok(false) => {}
            Err(error) => return tracing::warn!(%error, "cannot read the leader lock"),
        }
        let expired = match self.store.holder().await {
            Ok(holder) => holder.filter(|holder| holder.idle > LEASE_TIMEOUT),
            Err(error) => return tracing::warn!(%error, "cannot read the leader lock"),
        };
        let Some(holder) = expired else { return };
        tracing::warn!(idle_ms = holder.idle.as_millis(), "no heartbeat from the leader; ending its session");
        if let Err(error) = self.store.evict(holder).await {
            return tracing::warn!(%error, "cannot end the leader's session");
        }
        let began = Instant::now();
        if let Ok(true) = self.store.lead().await {
            self.run(began).await;
        }
    }

    /// Starts the leader's work. `answered` is the time just before it took the lock.
    async fn run(&mut self, answered: Instant) {
        self.answered = answered;
        if let Err(error) = self.executor.take_over().await {
            tracing::warn!(%error, "cannot take over as leader");
            // Another process may be able to.
            let _ = self.store.resign().await;
            return;
        }
        self.sealing.set(true);
        self.runs.send_replace(true);
        tracing::info!("leader: this process runs operations now");
        self.read_ledger().await;
    }

    /// Sends a heartbeat, and stands by if the database does not confirm the lock in time.
    async fn heartbeat(&mut self) {
        let asked = Instant::now();
        match timeout_at((self.answered + STEP_DOWN_AFTER).max(asked + LATE_ANSWER), self.store.heartbeat())
            .await
        {
            // With another epoch another process has led in between: commits of this one are rejected, so it stands by.
            Ok(Ok(Some(epoch))) if epoch == self.executor.epoch() => self.answered = asked,
            Ok(Ok(_)) => self.stand_by().await,
            Ok(Err(error)) if self.answered.elapsed() < STEP_DOWN_AFTER => {
                tracing::warn!(%error, "heartbeat failed");
            }
            Ok(Err(_)) | Err(_) => self.stand_by().await,
        }
    }

    /// Stops the leader's work and releases the lock.
    async fn stand_by(&mut self) {
        tracing::warn!("no longer leader: another process may have taken over; standing by");
        self.runs.send_replace(false);
        self.sealing.set(false);
        self.executor.stand_by().await;
        self.resources.outages().clear();
        // A session that hangs is ended by the standby that takes over.
        let _ = tokio::time::timeout(STEP_DOWN_AFTER, self.store.resign()).await;
        // The executor took notifications that arrived meanwhile for operations to run, and dropped them.
        self.read_ledger().await;
    }
}

/// Reads the ledger until that succeeds, or another process leads.
async fn read_ledger(executor: Executor<ProviderSteps>) {
    while executor.is_running()
        && let Err(error) = executor.look().await
    {
        tracing::warn!(%error, "cannot read the ledger; trying again");
        tokio::time::sleep(HEARTBEAT).await;
    }
}
