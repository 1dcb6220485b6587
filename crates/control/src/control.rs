//! `Control`: the use cases over store, keyring, providers and executor. Each use case is an `impl Control` in the file of
//! its subject; this file has the shared state and its construction.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tenantry_model::ErrorCode;

use tenantry_engine::{Clock, Executor, ExecutorConfig, Ledger, SystemClock};
use tenantry_model::{Catalogue, Timestamp, Write};
use tenantry_provider::{Provider as _, Registry, Sealer};
use tokio::sync::watch;

use crate::background;
use crate::error::{Error, FieldError, Result};
use crate::leader::Replica;
use crate::members::token::Tokens;
use crate::operations::ProviderSteps;
use crate::operations::archive::{ArchiveStore, Archives};
use crate::operations::onboard::Front;
use crate::resource::capacity::{Capacity, Slots};
use crate::resource::{ConcurrencyLimits, OnCall, Regions, Resources};
use crate::stats::eta::Pace;
use crate::stats::meter::{Meter, Metered};
use crate::templates::Library;
use tenantry_store::keyring::{Keyring, MasterKey};
use tenantry_store::{AUDIT_KEY, AuditReport, Sealing, Store, StoreConfig, WENT_BACK};

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
    /// Regions in which each provider may slot data.
    pub regions: Regions,
    /// Calls of each provider that may be under way at the same time.
    pub at_once: ConcurrencyLimits,
    /// Issuer of tokens, and base of links in mails.
    pub public_url: String,
    /// The executor's limits.
    pub executor: ExecutorConfig,
    /// Time from one isolation check of the fleet to the next; none: only on request.
    pub isolation_every: Option<Duration>,
    /// Folder of the archive store. All processes on one registry need the same one.
    pub archives: PathBuf,
    /// Most bytes of an archive that is imported.
    pub import_most: u64,
    /// Whether other processes may use the registry, which is then PostgreSQL, at the same time: one of them is the leader.
    /// Without, the process takes over from the one before it.
    pub replicas: bool,
}

/// Parts that the process provides.
pub struct Parts {
    /// Key that wraps every key in the keyring.
    pub master: MasterKey,
    /// The providers.
    pub providers: Registry,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Receives measurements, if there are to be any.
    pub meter: Option<Arc<dyn Meter>>,
    /// Wraps the ledger, for tests that interpose one.
    pub ledger: Option<WrapLedger>,
}

/// Wraps the ledger between the executor and the store.
pub type WrapLedger = Box<dyn FnOnce(Arc<dyn Ledger<Write>>) -> Arc<dyn Ledger<Write>> + Send>;

impl Parts {
    /// Providers and the machine's clock.
    pub fn new(master: MasterKey, providers: Registry) -> Self {
        Self { master, providers, clock: Arc::new(SystemClock), meter: None, ledger: None }
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
    /// The same as a list. To be removed when operations take handles from `resources`.
    pub providers: Registry,
    pub catalogue: Catalogue,
    pub templates: Library,
    pub steps: Arc<ProviderSteps>,
    pub slots: Arc<Slots>,
    pub archives: Arc<Archives>,
    /// The same as `resources`. To be removed when operations take handles from there.
    pub executor: Executor<ProviderSteps>,
    pub sealing: Arc<Sealing>,
    replica: Option<Replica>,
    pub tokens: Tokens,
    pub pace: Pace,
    pub background: background::Records,
    pub clock: Arc<dyn Clock>,
}

/// Time that the registry has to answer a readiness check.
const READY_PATIENCE: Duration = Duration::from_secs(2);

/// The shipped catalogue.
const CATALOGUE: &str = include_str!("../../../templates/plans.yaml");

impl Control {
    /// Opens registry and keyring, reads templates and plans, and continues the operations of earlier processes.
    pub async fn start(config: ControlConfig, parts: Parts) -> Result<Self> {
        let Parts { master, providers, clock, meter, ledger: wrap_ledger } = parts;
        let templates = Library::open(config.templates.as_deref(), &providers)?;
        let catalogue = read_catalogue(config.catalogue.as_deref().unwrap_or(CATALOGUE), &templates)?;
        // Opening destroys the keys of erased tenants again, in case the keyring was restored from a backup.
        let keyring = Arc::new(Keyring::open(&config.keyring_url, master).await.map_err(Error::unavailable)?);
        if config.replicas {
            Store::check_sessions(&config.store).await.map_err(Error::unavailable)?;
        }
        let store = Store::open(&config.store).await.map_err(Error::unavailable)?;
        if !store.belongs_to(&keyring.fingerprint()).await.map_err(Error::unavailable)? {
            return Err(Error::new(
                ErrorCode::KeyringMismatch,
                "the registry was created with another keyring: point `keyring.url` to that keyring, or \
                 restore it from its backup",
            ));
        }
        let on_call =
            meter.clone().map(|meter| -> OnCall { Arc::new(move |call| meter.provider_called(call)) });
        let resources = Resources::new(providers, config.regions.clone(), &config.at_once, on_call)?;
        let resources = Arc::new(resources);
        for provider in resources.iter() {
            let what = format!("the provider {}", provider.name());
            provider.start().await.map_err(|failure| Error::provider_unavailable(&what, failure))?;
        }
        let slots = Slots::new(store.clone(), config.capacity.clone());
        let store_of_archives = ArchiveStore::new(config.archives.clone());
        let archives = Arc::new(Archives::new(store_of_archives, keyring.clone(), config.import_most));
        let steps = Arc::new(ProviderSteps::new(
            resources.registry().clone(),
            resources.clone(),
            keyring.clone(),
            store.clone(),
            slots.clone(),
            archives.clone(),
        ));
        let sealing = Sealing::start(store.clone(), &keyring, !config.replicas).await;
        let sealing = Arc::new(sealing.map_err(Error::unavailable)?);
        let tokens = Tokens::load(&keyring, &config.public_url).await?;
        let ledger: Arc<dyn Ledger<Write>> = Arc::new(store.clone());
        let ledger = match meter {
            Some(meter) => Arc::new(Metered::new(ledger, meter)),
            None => ledger,
        };
        let ledger = match wrap_ledger {
            Some(wrap) => wrap(ledger),
            None => ledger,
        };
        let executor = Executor::standing_by(ledger, steps.clone(), config.executor, clock.clone());
        let replica = if config.replicas {
            let (store, executor) = (store.clone(), executor.clone());
            let replica = Replica::start(store, executor, sealing.clone(), keyring.clone()).await;
            Some(replica.map_err(Error::unavailable)?)
        } else {
            executor.take_over().await.map_err(Error::unavailable)?;
            None
        };
        let alone = replica.is_none();
        let shared = Shared {
            store,
            keyring,
            providers: resources.registry().clone(),
            resources,
            catalogue,
            templates,
            steps,
            slots,
            archives,
            executor,
            sealing,
            replica,
            tokens,
            pace: Pace::default(),
            background: background::records(),
            clock,
            config,
        };
        let control = Self { shared: Arc::new(shared) };
        control.erase_again().await?;
        if alone {
            control.shared.executor.look().await.map_err(Error::unavailable)?;
        }
        Ok(control)
    }

    /// Gives the smoke test its endpoints.
    pub fn set_front(&self, front: Arc<dyn Front>) {
        self.shared.steps.set_front(front);
    }

    /// A handle that does not keep the control plane alive: for a `Front` that calls back into it.
    pub fn downgrade(&self) -> WeakControl {
        WeakControl(Arc::downgrade(&self.shared))
    }

    /// Stops new work, waits for running attempts, commits pending writes, and closes.
    pub async fn stop(&self) {
        self.shared.executor.stop().await;
        if let Some(replica) = &self.shared.replica {
            replica.stop();
        }
        self.shared.sealing.stop().await;
        if let Some(replica) = &self.shared.replica {
            replica.leave().await;
        }
        self.shared.store.close().await;
        self.shared.keyring.close().await;
    }

    /// Whether requests can be served: the registry answers, and was not restored to an earlier state.
    pub async fn ready(&self) -> Result<()> {
        if self.shared.store.went_back() {
            return Err(Error::new(ErrorCode::RegistryWentBack, WENT_BACK));
        }
        // A readiness check needs an answer now.
        match tokio::time::timeout(READY_PATIENCE, self.shared.store.ping()).await {
            Ok(answered) => answered.map_err(Error::unavailable),
            Err(_) => Err(Error::unavailable("no answer in time")),
        }
    }

    /// The plans on offer.
    pub fn plans(&self) -> &Catalogue {
        &self.shared.catalogue
    }

    /// The templates, every version.
    pub fn templates(&self) -> &Library {
        &self.shared.templates
    }

    /// The providers of this process.
    pub fn providers(&self) -> &Registry {
        &self.shared.providers
    }

    /// Verifies the audit chain.
    pub async fn verify_audit(&self) -> Result<AuditReport> {
        let key = self.shared.keyring.signing_key(AUDIT_KEY).await.map_err(Error::unavailable)?;
        self.shared.store.audit_verify(key.public()).await.map_err(Error::unavailable)
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

fn read_catalogue(text: &str, templates: &Library) -> Result<Catalogue> {
    let fault =
        |why: String| Error::invalid(ErrorCode::CatalogueInvalid, vec![FieldError::new("plans", why)]);
    let catalogue: Catalogue = yaml_serde::from_str(text).map_err(|why| fault(why.to_string()))?;
    if let Some(name) = catalogue.duplicates().first() {
        return Err(fault(format!("the name or alias `{name}` is given twice")));
    }
    match catalogue.plans.iter().find(|plan| templates.latest(&plan.template).is_none()) {
        Some(plan) => Err(fault(format!("plan `{}`: there is no template `{}`", plan.name, plan.template))),
        None => Ok(catalogue),
    }
}
