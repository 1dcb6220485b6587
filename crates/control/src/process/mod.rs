//! This process: its start and its end, whether it can serve requests, and the state of its providers.

pub mod doctor;

use std::sync::Arc;
use std::time::Duration;

use tenantry_engine::{Clock, Executor, Ledger, SystemClock};
use tenantry_model::{Catalogue, ErrorCode, Write};
use tenantry_provider::{Provider as _, Registry};

use crate::background;
use crate::control::brake::Brake;
use crate::control::eta::Pace;
use crate::control::leader::Replica;
use crate::control::token::Tokens;
use crate::control::{Control, ControlConfig, ProviderSteps, Shared};
use crate::error::{Error, FieldError, Result};
use crate::resource::capacity::Slots;
use crate::resource::{ArchiveStore, OnCall, Resources};
use crate::stats::meter::{Meter, Metered};
use crate::templates::Library;
use tenantry_store::keyring::{Keyring, MasterKey};
use tenantry_store::{Sealing, Store, WENT_BACK};

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

/// Time that the registry has to answer a readiness check.
const READY_PATIENCE: Duration = Duration::from_secs(2);

/// The shipped catalogue.
const CATALOGUE: &str = include_str!("../../../../templates/plans.yaml");

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
        let steps = Arc::new(ProviderSteps::new(
            resources.clone(),
            keyring.clone(),
            store.clone(),
            slots.clone(),
            ArchiveStore::new(config.archives.clone()),
            config.import_most,
        ));
        let sealing = Sealing::start(store.clone(), keyring.clone(), !config.replicas).await;
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
            let (store, executor, resources) = (store.clone(), executor.clone(), resources.clone());
            let replica = Replica::start(store, executor, sealing.clone(), keyring.clone(), resources).await;
            Some(replica.map_err(Error::unavailable)?)
        } else {
            executor.take_over().await.map_err(Error::unavailable)?;
            None
        };
        let alone = replica.is_none();
        let shared = Shared {
            store,
            keyring,
            resources,
            catalogue,
            templates,
            steps,
            slots,
            executor,
            sealing,
            replica,
            tokens,
            brake: Brake::default(),
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

    /// The providers of this process.
    pub fn providers(&self) -> &Registry {
        self.shared.resources.registry()
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
