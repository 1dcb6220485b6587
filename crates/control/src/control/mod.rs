//! `Control`: the state that all use cases share, and what several of them need. Each use case is an `impl Control` in the
//! folder of its subject, above this one: nothing here knows a use case. `process` builds the state.

pub(crate) mod brake;
pub(crate) mod eta;
pub(crate) mod jwt;
pub(crate) mod leader;
pub mod page;
pub mod rate;
mod steps;
pub mod tasks;
pub mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tenantry_engine::{Clock, Executor, ExecutorConfig};
use tenantry_model::{Catalogue, Timestamp};
use tenantry_provider::Sealer;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::resource::capacity::{Capacity, Slots};
use crate::resource::{ConcurrencyLimits, Regions, Resources};
use crate::templates::Library;
use brake::Brake;
use eta::Pace;
use leader::Replica;
use tasks::Records;
use tenantry_store::keyring::Keyring;
use tenantry_store::{AuditReport, Sealing, Store, StoreConfig};
use token::Tokens;

pub(crate) use steps::ProviderNotes;
pub use steps::{Front, ProviderSteps};

/// Configuration of a process.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// The registry.
    pub store: StoreConfig,
    /// The keyring's database (`sqlite://…`, `postgres://…`), outside the registry and its backups.
    pub keyring_url: String,
    /// Templates of the user's, over the shipped ones.
    pub templates: Option<PathBuf>,
    /// The plan catalogue as YAML; the shipped one without it.
    pub catalogue: Option<String>,
    /// Region of a tenant whose request names none.
    pub region: String,
    /// Language of a tenant whose request names none.
    pub locale: String,
    /// Capacity of each region. Tenants go to these regions and to `region`.
    pub capacity: Capacity,
    /// Regions in which each provider may place data.
    pub regions: Regions,
    /// Calls of each provider that may be under way at the same time.
    pub at_once: ConcurrencyLimits,
    /// Issuer of tokens, and base of links in mails.
    pub public_url: String,
    /// The executor's limits.
    pub executor: ExecutorConfig,
    /// Time from one isolation check of the fleet to the next; none: only on request.
    pub isolation_every: Option<Duration>,
    /// Lifetimes of members' sessions.
    pub sessions: SessionLimits,
    /// Folder of the archive store. All processes on one registry need the same one.
    pub archives: PathBuf,
    /// Most bytes of an archive that is imported.
    pub import_most: u64,
    /// Whether other processes may use the registry, which is then PostgreSQL, at the same time: one of them is the leader.
    /// Without, the process takes over from the one before it.
    pub replicas: bool,
}

/// Lifetimes of members' sessions.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Time without use after which a session ends.
    pub idle: Duration,
    /// Time after which a session ends at the latest.
    pub lifetime: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Self { idle: days(7), lifetime: days(30) }
    }
}

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    pub(crate) shared: Arc<Shared>,
}

/// A reference to a `Control` that does not keep it alive.
#[derive(Clone)]
pub struct WeakControl(std::sync::Weak<Shared>);

impl WeakControl {
    /// The control plane, while it lives.
    pub fn upgrade(&self) -> Option<Control> {
        self.0.upgrade().map(|shared| Control { shared })
    }
}

pub(crate) struct Shared {
    pub config: ControlConfig,
    pub store: Store,
    pub keyring: Arc<Keyring>,
    pub resources: Arc<Resources>,
    pub catalogue: Catalogue,
    pub templates: Library,
    pub steps: Arc<ProviderSteps>,
    pub slots: Arc<Slots>,
    pub executor: Executor<ProviderSteps>,
    pub sealing: Arc<Sealing>,
    pub replica: Option<Replica>,
    pub tokens: Tokens,
    pub brake: Brake,
    pub pace: Pace,
    pub background: Records,
    pub clock: Arc<dyn Clock>,
}

impl Control {
    /// Gives the smoke test its endpoints.
    pub fn set_front(&self, front: Arc<dyn Front>) {
        self.shared.steps.set_front(front);
    }

    /// A handle that does not keep the control plane alive: for a `Front` that calls back into it.
    pub fn downgrade(&self) -> WeakControl {
        WeakControl(Arc::downgrade(&self.shared))
    }

    /// The plans on offer.
    pub fn plans(&self) -> &Catalogue {
        &self.shared.catalogue
    }

    /// The templates, every version.
    pub fn templates(&self) -> &Library {
        &self.shared.templates
    }

    /// Verifies the audit chain.
    pub async fn verify_audit(&self) -> Result<AuditReport> {
        self.shared.store.audit_verify(&self.shared.keyring).await.map_err(Error::unavailable)
    }

    /// Whether this process is the leader, as it changes.
    pub fn runs(&self) -> watch::Receiver<bool> {
        self.shared.replica.as_ref().map_or_else(|| watch::Sender::new(true).subscribe(), Replica::runs)
    }

    /// Operations with a task at this moment, and timers that are set.
    pub fn executor_load(&self) -> (usize, usize) {
        self.shared.executor.load()
    }

    /// The keyed digest by which a text is found again without being stored.
    pub(crate) fn mac(&self, purpose: &str, text: &str) -> String {
        Sealer::mac(&*self.shared.keyring, purpose, text)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }
}
