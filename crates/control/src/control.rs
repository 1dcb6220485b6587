//! `Control`: the use cases over store, keyring, providers and executor. Each use case is an `impl Control` in the
//! file of its subject; here is only what they share, and how it is put together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tenantry_engine::{Clock, Executor, ExecutorConfig, Ledger, SystemClock};
use tenantry_model::{Catalogue, Timestamp, Write};
use tenantry_provider::{Registry, Sealer};
use tokio::sync::watch;

use crate::capacity::{Capacity, Places};
use crate::error::{Error, ErrorKind, FieldError, Result};
use crate::eta::Pace;
use crate::meter::{Meter, Metered};
use crate::operations::ProviderSteps;
use crate::operations::archive::{ArchiveStore, Archives};
use crate::operations::onboard::Front;
use crate::replica::Replica;
use crate::serving::{AtOnce, Regions, Serving};
use crate::template::Library;
use crate::token::Tokens;
use tenantry_store::keyring::{Keyring, MasterKey};
use tenantry_store::{AUDIT_KEY, AuditReport, Sealing, Store, StoreConfig, WENT_BACK};

/// What a process of Tenantry is told.
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
    /// How much room there is in which region. Tenants go to these regions and to `region`.
    pub capacity: Capacity,
    /// In which regions what a provider makes lies.
    pub regions: Regions,
    /// How many calls to a provider may be under way at the same time.
    pub at_once: AtOnce,
    /// Issuer of tokens, and base of links in mails.
    pub public_url: String,
    /// The executor's limits.
    pub executor: ExecutorConfig,
    /// How often the sweep checks that tenants are kept apart; none: only when somebody asks for it.
    pub isolation_every: Option<Duration>,
    /// Folder of the archives of what tenants have. Of several processes, all need the same one.
    pub archives: PathBuf,
    /// Most bytes of an archive that is imported.
    pub import_most: u64,
    /// Whether other processes may use the registry at the same time, which is PostgreSQL then: one of them runs. Alone, a
    /// process takes over from whoever was there before it.
    pub replicas: bool,
}

/// What the process brings along.
pub struct Parts {
    /// What every key in the keyring is wrapped by.
    pub master: MasterKey,
    /// Who makes resources.
    pub providers: Registry,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who is told how onboarding goes, if anybody is.
    pub meter: Option<Arc<dyn Meter>>,
    /// Wraps the ledger, for tests that interpose one.
    pub ledger: Option<WrapLedger>,
}

/// Puts something between the executor and the store.
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

/// A `Control` that may be gone.
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
    pub providers: Registry,
    pub catalogue: Catalogue,
    pub templates: Library,
    pub steps: Arc<ProviderSteps>,
    pub places: Arc<Places>,
    pub archives: Arc<Archives>,
    pub serving: Arc<Serving>,
    pub executor: Executor<ProviderSteps>,
    pub sealing: Arc<Sealing>,
    replica: Option<Replica>,
    pub tokens: Tokens,
    pub pace: Pace,
    pub clock: Arc<dyn Clock>,
}

/// How long the registry may take to count as ready.
const READY_PATIENCE: Duration = Duration::from_secs(2);

/// The shipped catalogue.
const CATALOGUE: &str = include_str!("../../../templates/plans.yaml");

impl Control {
    /// Opens registry and keyring, reads templates and plans, takes over what an earlier process left, and goes on.
    /// `front` serves the smoke test; it may call back into the control plane only once this has returned.
    pub async fn start(config: ControlConfig, parts: Parts) -> Result<Self> {
        let templates = Library::open(config.templates.as_deref(), &parts.providers)?;
        let catalogue = read_catalogue(config.catalogue.as_deref().unwrap_or(CATALOGUE), &templates)?;
        // Opening destroys the keys of the erased again: what a restored backup has of them is unreadable from here on.
        let keyring =
            Arc::new(Keyring::open(&config.keyring_url, parts.master).await.map_err(Error::unavailable)?);
        if config.replicas {
            Store::check_sessions(&config.store).await.map_err(Error::unavailable)?;
        }
        let store = Store::open(&config.store).await.map_err(Error::unavailable)?;
        if !store.belongs_to(&keyring.fingerprint()).await.map_err(Error::unavailable)? {
            return Err(Error::conflict(
                "keyring_mismatch",
                "this registry was made with another keyring, without which nobody can read it; \
                 put the keyring back from its backup",
            ));
        }
        let serving = Arc::new(Serving::new(config.regions.clone(), &config.at_once, &parts.providers)?);
        for provider in parts.providers.iter() {
            provider.start().await.map_err(Error::unavailable)?;
        }
        let places = Places::new(store.clone(), config.capacity.clone());
        let store_of_archives = ArchiveStore::new(config.archives.clone());
        let archives = Arc::new(Archives::new(store_of_archives, keyring.clone(), config.import_most));
        let steps = Arc::new(ProviderSteps::new(
            parts.providers.clone(),
            serving.clone(),
            keyring.clone(),
            store.clone(),
            places.clone(),
            archives.clone(),
        ));
        let sealing = Sealing::start(store.clone(), &keyring, !config.replicas).await;
        let sealing = Arc::new(sealing.map_err(Error::unavailable)?);
        let tokens = Tokens::load(&keyring, &config.public_url).await?;
        let ledger: Arc<dyn Ledger<Write>> = Arc::new(store.clone());
        let ledger = match parts.meter {
            Some(meter) => Arc::new(Metered::new(ledger, meter)),
            None => ledger,
        };
        let ledger = match parts.ledger {
            Some(wrap) => wrap(ledger),
            None => ledger,
        };
        let executor = Executor::standing_by(ledger, steps.clone(), config.executor, parts.clock.clone());
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
            providers: parts.providers,
            catalogue,
            templates,
            steps,
            places,
            archives,
            serving,
            executor,
            sealing,
            replica,
            tokens,
            pace: Pace::default(),
            clock: parts.clock,
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

    /// Begins nothing new, lets running attempts end, writes what waits, and closes.
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

    /// Whether requests can be served: the registry answers, and is no earlier one than it was.
    pub async fn ready(&self) -> Result<()> {
        if self.shared.store.went_back() {
            return Err(Error::new(ErrorKind::Unavailable, "registry_went_back", WENT_BACK));
        }
        // Whoever asks wants to know whether it answers now, not in the end.
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

    /// Walks the audit chain and says what of it is proven.
    pub async fn verify_audit(&self) -> Result<AuditReport> {
        let key = self.shared.keyring.signing_key(AUDIT_KEY).await.map_err(Error::unavailable)?;
        self.shared.store.audit_verify(key.public()).await.map_err(Error::unavailable)
    }

    /// Whether this process runs operations, as it changes: of several on one registry, one does.
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
    let fault = |why: String| Error::invalid("catalogue_invalid", vec![FieldError::new("plans", why)]);
    let catalogue: Catalogue = yaml_serde::from_str(text).map_err(|why| fault(why.to_string()))?;
    if let Some(name) = catalogue.duplicates().first() {
        return Err(fault(format!("the name or alias `{name}` is given twice")));
    }
    match catalogue.plans.iter().find(|plan| templates.latest(&plan.template).is_none()) {
        Some(plan) => Err(fault(format!("plan `{}`: there is no template `{}`", plan.name, plan.template))),
        None => Ok(catalogue),
    }
}
