//! The environment of the tests: registry, keyring and resources on disk, and control plane processes over
//! them with a virtual clock, a ledger that can crash and providers with injected faults.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_builtin::bucket_folder::{self, BucketFolder};
use tenantry_builtin::certificate_local_ca::{self, CertificateLocalCa};
use tenantry_builtin::dns_builtin::{self, DnsBuiltin};
use tenantry_builtin::mail_outbox;
use tenantry_builtin::namespace_manifests::{self, NamespaceManifests};
use tenantry_control::billing::BillingBuiltin;
use tenantry_control::members::IdentityBuiltin;
use tenantry_control::objects::SignObject;
use tenantry_control::resource::{ConcurrencyLimits as AtOnce, Regions, Resources};
use tenantry_control::tenants::config::ConfigBuiltin;
use tenantry_control::{Control, ControlConfig, Error, Front, Parts, SessionLimits, WeakControl};
use tenantry_databases::postgres::{self, Postgres};
use tenantry_databases::postgres_database::DatabasePostgresDatabase;
use tenantry_databases::postgres_pool::DatabasePostgresPool;
use tenantry_databases::postgres_schema::DatabasePostgresSchema;
use tenantry_databases::sqlite_file::{self, DatabaseSqliteFile};
use tenantry_databases::sqlite_pool::{self, DatabaseSqlitePool};
use tenantry_engine::{
    Clock, Commit, CommitError, ExecutorConfig, Ledger, Run, Signal, Step, StepState, Waiting,
};
use tenantry_model::id::OperationId;
use tenantry_model::{Failure, Plan, Timestamp, Write};
use tenantry_provider::Registry;
use tenantry_provider::objects::{Method, New, TenantObjects};
use tenantry_store::StoreConfig;
use tenantry_store::keyring::MasterKey;
use tenantry_testkit::Raw;
use tenantry_testkit::TestDatabase;
use tenantry_testkit::crash_ledger::{CrashLedger, Faults};
use tenantry_testkit::gate::Gate;
use tenantry_testkit::scan::Stores;
use tenantry_testkit::virtual_clock::VirtualClock;
use tokio::io::AsyncReadExt;
use tokio::sync::{OnceCell, watch};

use crate::faulty::{FaultPlan, Faulty, Started, made, removed};
use crate::handle::{Calls, counter};
use crate::shelf::Shelf;
use crate::stats::Book;
use crate::story;

const MASTER_KEY: &str = "master.key";

/// Name and content of every file of a new world.
static BLANK: OnceCell<Vec<(String, Vec<u8>)>> = OnceCell::const_new();
const REGISTRY: &str = "registry.db";

/// Runs a test on both stores.
macro_rules! in_both_worlds {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::world::World::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                if let Some(world) = crate::world::World::postgres().await {
                    super::$name(world).await;
                }
            })*
        }
    };
}
pub(crate) use in_both_worlds;

/// State that outlives every process.
pub struct World {
    folder: TempDir,
    registry: Option<TestDatabase>,
    /// Main database of the tenants, if their databases are on PostgreSQL.
    pub tenants: Option<TestDatabase>,
    pub clock: VirtualClock,
    pub plan: Arc<FaultPlan>,
    pub book: Arc<Book>,
    /// Work that the ledger has recorded as done or undone, which must not run again.
    over: Arc<Mutex<BTreeSet<String>>>,
    taken_over: Arc<Mutex<BTreeSet<String>>>,
    pub regions: Regions,
    pub at_once: AtOnce,
    /// Calls that reached providers.
    pub reached: Calls,
    /// Whether there is a second instance of the buckets, whose name sorts before that of the first.
    pub another_bucket: bool,
    /// Capacity of databases.
    pub room: u32,
    /// Time for which a dependency that does not work is waited for. Short, so that a fault without end
    /// becomes a failed step; the tests of outages have the default.
    pub retry_for: Duration,
    /// Role without a privilege as which the providers connect, instead of as the administrator.
    pub weak_role: Option<String>,
    /// Gate in front of PostgreSQL. The processes of a world with a gate have the machine's clock.
    pub gate: Option<Arc<Gate>>,
    /// Whether started processes share the registry.
    pub replicas: bool,
    /// Folder of the templates beside the shipped ones.
    pub templates: PathBuf,
    /// Plans beside the shipped ones and those of the tests' own templates.
    pub plans: Vec<Plan>,
}

/// A backup of the registry.
pub enum Backup {
    File(Vec<u8>),
    Database(TestDatabase),
}

/// One process.
pub struct Process {
    pub control: Control,
    pub ledger: Arc<CrashLedger<Write>>,
}

impl World {
    /// A world on SQLite.
    pub async fn sqlite() -> Self {
        Self::empty(None).filled().await
    }

    /// A world on PostgreSQL; none, reported as skipped, if no server is available.
    pub async fn postgres() -> Option<Self> {
        let registry = TestDatabase::postgres_registry().await?;
        Some(Self::empty(Some(registry)).filled().await)
    }

    /// A world with its registry in this database, shared by several processes.
    pub async fn shared(registry: TestDatabase) -> Self {
        Self { replicas: true, ..Self::empty(Some(registry)).filled().await }
    }

    /// A world on SQLite with the tenants' databases on PostgreSQL; none, reported as skipped, if no server
    /// is available.
    pub async fn with_tenants_on_postgres() -> Option<Self> {
        let tenants = TestDatabase::postgres().await?;
        Some(Self { tenants: Some(tenants), ..Self::empty(None).filled().await })
    }

    /// A world with the tenants' databases, and with `registry` the registry too, on PostgreSQL behind a gate; none, reported
    /// as skipped, if no server is available.
    pub async fn behind_a_gate(registry: bool) -> Option<Self> {
        let tenants = TestDatabase::postgres().await?;
        let gate = Some(Arc::new(Gate::new(tenants.url())));
        let registry = if registry { TestDatabase::postgres_registry().await } else { None };
        let replicas = registry.is_some();
        Some(Self { tenants: Some(tenants), gate, replicas, ..Self::empty(registry).filled().await })
    }

    fn empty(registry: Option<TestDatabase>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let over = Arc::default();
        let plan = Arc::new(FaultPlan::new(Arc::clone(&over)));
        Self {
            folder,
            registry,
            tenants: None,
            clock: VirtualClock::start(),
            plan,
            book: Arc::default(),
            over,
            taken_over: Arc::default(),
            regions: Regions::new(),
            at_once: AtOnce::new(),
            reached: Calls::default(),
            another_bucket: false,
            room: 1_000,
            retry_for: Duration::from_secs(5),
            weak_role: None,
            gate: None,
            replicas: false,
            templates: story::folder(),
            plans: Vec::new(),
        }
    }

    /// Copies prepared databases, because creating their tables is the slow part of a first start.
    async fn filled(self) -> Self {
        let files = BLANK.get_or_init(async || {
            let world = Self::empty(None);
            let process = world.start(Faults::new()).await.expect("a first process");
            process.control.stop().await;
            drop(process);
            let mut files = Vec::new();
            for file in std::fs::read_dir(world.folder.path()).expect("a folder").flatten() {
                let (name, path) = (file.file_name().to_string_lossy().into_owned(), file.path());
                if name.ends_with(".db") {
                    let database = Raw::connect(&format!("sqlite://{}", path.display())).await;
                    // Write the log into the one file that is copied.
                    database.rows("PRAGMA wal_checkpoint(TRUNCATE)").await;
                    database.close().await;
                }
                if path.is_file() && !name.ends_with("-wal") && !name.ends_with("-shm") {
                    files.push((name, std::fs::read(path).expect("a file")));
                }
            }
            files
        });
        for (name, content) in files.await {
            if self.registry.is_none() || name != REGISTRY {
                std::fs::write(self.folder.path().join(name), content).expect("a copy");
            }
        }
        // The master key is only read from a file that is private.
        let key = self.folder.path().join(MASTER_KEY);
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).expect("permissions");
        self
    }

    /// Locations of all stores.
    pub fn stores(&self) -> Stores {
        let tenants = self.tenants.iter().map(|database| database.url().to_owned()).collect();
        Stores { registry: self.registry_url(), data: self.folder.path().to_owned(), tenants }
    }

    pub fn registry_url(&self) -> String {
        let file = || format!("sqlite://{}", self.folder.path().join(REGISTRY).display());
        self.registry.as_ref().map_or_else(file, |database| database.url().to_owned())
    }

    /// Copies the registry. No process may run.
    pub async fn back_up(&self) -> Backup {
        if let Some(registry) = &self.registry {
            return Backup::Database(registry.copy().await);
        }
        let database = Raw::connect(&self.registry_url()).await;
        database.rows("PRAGMA wal_checkpoint(TRUNCATE)").await;
        database.close().await;
        Backup::File(std::fs::read(self.folder.path().join(REGISTRY)).expect("the registry"))
    }

    /// Replaces the registry with a backup.
    pub fn restore(&mut self, backup: Backup) {
        match backup {
            Backup::Database(database) => self.registry = Some(database),
            Backup::File(bytes) => {
                for log in ["-wal", "-shm"] {
                    let _ = std::fs::remove_file(self.folder.path().join(format!("{REGISTRY}{log}")));
                }
                std::fs::write(self.folder.path().join(REGISTRY), bytes).expect("the registry");
            }
        }
        self.over.lock().clear();
        self.taken_over.lock().clear();
    }

    fn config(&self, providers: &Registry) -> ControlConfig {
        let mut catalogue = story::catalogue(providers).clone();
        catalogue.plans.extend(self.plans.iter().cloned());
        ControlConfig {
            store: StoreConfig { url: self.reached(&self.registry_url()), readers: 4 },
            keyring_url: format!("sqlite://{}", self.folder.path().join("keyring.db").display()),
            templates: Some(self.templates.clone()),
            catalogue: Some(json!(catalogue).to_string()),
            region: "eu-central-1".to_owned(),
            locale: "en".to_owned(),
            capacity: BTreeMap::from([(
                "eu-central-1".to_owned(),
                BTreeMap::from([("database".to_owned(), self.room)]),
            )]),
            regions: self.regions.clone(),
            at_once: self.at_once.clone(),
            public_url: "http://localhost".to_owned(),
            isolation_every: Some(Duration::from_secs(86_400)),
            sessions: SessionLimits::default(),
            archives: self.folder.path().join("archives"),
            import_most: 1 << 20,
            executor: ExecutorConfig { retry_for: self.retry_for, ..ExecutorConfig::default() },
            replicas: self.replicas,
        }
    }

    /// The URL by which processes reach a database.
    fn reached(&self, url: &str) -> String {
        match &self.gate {
            Some(gate) if url.starts_with("postgres:") => gate.url(url),
            _ => url.to_owned(),
        }
    }

    /// Database providers of this world.
    async fn databases(&self) -> Result<Registry, Failure> {
        let registry = Registry::default();
        if let Some(tenants) = &self.tenants {
            let url = match &self.weak_role {
                Some(role) => {
                    tenants.url().replacen("postgres://postgres@", &format!("postgres://{role}@"), 1)
                }
                None => self.reached(tenants.url()),
            };
            let config = postgres::Config::new(url);
            let config = postgres::Config { app_role: tenants.app_role(), connections: 4, ..config };
            let postgres = Postgres::new(config)?;
            return Ok(registry
                .add(Faulty::over(DatabasePostgresPool::new(postgres.clone()), self))
                .add(Faulty::over(DatabasePostgresSchema::new(postgres.clone()), self))
                .add(Faulty::over(DatabasePostgresDatabase::new(postgres), self)));
        }
        // Fewer warm databases than concurrent tenants, so that both paths are used.
        let own = self.folder.path().join("tenants");
        let own = sqlite_file::Config { warm: 2, ..sqlite_file::Config::new(own) };
        let pool = sqlite_pool::Config::new(self.stores().pool());
        Ok(registry
            .add(Faulty::over(DatabaseSqlitePool::new(pool).await?, self))
            .add(Faulty::over(DatabaseSqliteFile::new(own).await?, self)))
    }

    /// Providers of this world, each with injected faults.
    pub async fn providers(&self) -> Result<Registry, Failure> {
        let folder = |name: &str| self.folder.path().join(name);
        let outbox = mail_outbox::Config::new(folder("outbox"));
        let bucket = bucket_folder::Config::new(folder("buckets"));
        let manifests = namespace_manifests::Config::new(folder("manifests"));
        let dns = dns_builtin::Config::new(folder("dns"));
        let certificates = certificate_local_ca::Config::new(folder("certificates"));
        let databases = self.databases().await?;
        let mut all = databases
            .add(Faulty::over(BucketFolder::new(bucket), self))
            .add(Faulty::over(NamespaceManifests::new(manifests), self))
            .add(Faulty::over(DnsBuiltin::new(dns)?, self))
            .add(Faulty::over(CertificateLocalCa::new(certificates)?, self))
            .add(Faulty::over(IdentityBuiltin::default(), self))
            .add(Faulty::over(ConfigBuiltin::default(), self))
            .add(Faulty::over(BillingBuiltin::default(), self))
            .add(Faulty::over(mail_outbox::MailOutbox::new(outbox)?, self))
            .add(Faulty::over(Shelf::new(folder("things")), self));
        if self.another_bucket {
            // After the others, so that it is not the default of its kind.
            let another = bucket_folder::Config::new(folder("more_buckets"));
            let another = Faulty::over(BucketFolder::new(another).named("another_bucket"), self);
            all.insert(Arc::new(another))?;
        }
        Ok(all)
    }

    /// Starts a process on the existing state, with these faults of its ledger.
    pub async fn start(&self, faults: Faults) -> Result<Process, Error> {
        let failed = |failure: Failure| Error::internal(failure);
        let master =
            MasterKey::read_or_create(&self.folder.path().join(MASTER_KEY)).map_err(Error::internal)?;
        // Calls of a dead process end before the next one starts.
        self.plan.settled().await;
        let providers = self.providers().await.map_err(failed)?;
        self.plan.providers(&providers);
        let (made, mut known) = watch::channel(None::<Arc<CrashLedger<Write>>>);
        let (over, taken_over, plan) = (self.over.clone(), self.taken_over.clone(), self.plan.clone());
        let config = self.config(&providers);
        let counted = Some(counter(&self.reached));
        let counted = Resources::new(providers, Regions::new(), &AtOnce::new(), counted)?;
        let mut parts = Parts::new(master, counted.registry().clone());
        if self.gate.is_none() {
            parts.clock = Arc::new(self.clock.clone());
        }
        parts.meter = Some(self.book.clone());
        let wrapped = made.clone();
        parts.ledger = Some(Box::new(move |inner| {
            let ledger =
                Arc::new(CrashLedger::new(Arc::new(Watched { inner, over, taken_over, plan }), faults));
            wrapped.send_replace(Some(ledger.clone()));
            ledger
        }));
        let died = async {
            let ledger = known.wait_for(Option::is_some).await.map(|ledger| ledger.clone());
            ledger.ok().flatten().expect("the ledger was wrapped").died().await;
        };
        let control = tokio::select! {
            biased;
            control = Control::start(config, parts) => control?,
            () = died => return Err(Error::unavailable("the process died while it started")),
        };
        control.set_front(Arc::new(Direct { control: control.downgrade(), plan: self.plan.clone() }));
        let ledger = made.borrow().clone().expect("the ledger was wrapped");
        Ok(Process { control, ledger })
    }

    /// Waits until no operation makes progress without a signal.
    pub async fn quiet(&self) {
        let limit = self.clock.now() + Duration::from_secs(365 * 86_400);
        assert!(self.clock.quiet(limit).await, "work continues for more than a year of virtual time");
    }
}

/// A request for a tenant with this plan.
pub fn request(name: &str, plan: &str) -> Value {
    json!({
        "tenant_name": name, "locale": "de",
        "admin_user": { "email": format!("{}@example.com", name.replace(|c: char| !c.is_alphanumeric(), "")), "first_name": "Ada" },
        "subscription": { "plan": plan }
    })
}

/// A ledger that records finished work.
struct Watched {
    inner: Arc<dyn Ledger<Write>>,
    over: Arc<Mutex<BTreeSet<String>>>,
    /// Resources that an operation which deletes their tenant has taken over.
    taken_over: Arc<Mutex<BTreeSet<String>>>,
    plan: Arc<FaultPlan>,
}

/// The steps of a run that are under way.
fn under_way(run: &Run) -> impl Iterator<Item = Started> {
    let started = |step: &&Step| matches!(step.state, StepState::Running | StepState::Undoing);
    run.steps
        .iter()
        .filter(started)
        .map(|step| (run.operation.kind.clone(), step.key.clone(), step.state == StepState::Running))
}

/// The work that is finished with a step, if any. Resources in `taken_over` belong to the operation that
/// deletes the tenant.
fn over(run: &Run, step: &Step, taken_over: &BTreeSet<String>) -> Option<String> {
    let resource = step.input.get("resource").and_then(Value::as_str);
    let what = resource.map_or_else(|| format!("{} of {}", step.key, run.operation.subject), str::to_owned);
    match step.state {
        StepState::Done if deletes(step) => Some(removed(&what)),
        StepState::Undone if taken_over.contains(&what) => None,
        // A detached step is done for its parent; its child creates the resource.
        StepState::Done if step.child.is_none() => Some(made(&what)),
        StepState::Undone => Some(removed(&what)),
        _ => None,
    }
}

fn deletes(step: &Step) -> bool {
    step.input.get("act").is_some_and(|act| act == "remove")
}

#[async_trait]
impl Ledger<Write> for Watched {
    async fn begin_epoch(&self) -> Result<i64, CommitError> {
        self.inner.begin_epoch().await
    }
    async fn epoch(&self) -> Result<i64, CommitError> {
        self.inner.epoch().await
    }
    async fn load(&self, id: OperationId) -> Result<Option<(Run, Vec<Signal>)>, CommitError> {
        self.plan.ledger_works()?;
        self.inner.load(id).await
    }
    async fn commit(&self, commit: Commit<Write>) -> Result<(), CommitError> {
        let runs = commit.children.iter().chain([&*commit.run]);
        let begun = commit.run.steps.iter().filter(|step| commit.run.operation.version == 1 && deletes(step));
        let begun = begun.filter_map(|step| step.input.get("resource")?.as_str().map(str::to_owned));
        let begun: Vec<String> = begun.collect();
        let over: Vec<String> = {
            let mut taken_over = self.taken_over.lock();
            taken_over.extend(begun.iter().cloned());
            runs.flat_map(|run| run.steps.iter().filter_map(|step| over(run, step, &taken_over))).collect()
        };
        self.plan.ledger_works()?;
        let started: Vec<Started> = under_way(&commit.run).collect();
        self.inner.commit(commit).await?;
        self.plan.starts(started.into_iter());
        let mut all = self.over.lock();
        // A deleting operation may delete a resource once more even if a rollback did; during a hold it may
        // be recreated.
        all.retain(|what| !begun.iter().any(|it| *what == removed(it) || *what == made(it)));
        all.extend(over);
        Ok(())
    }
    async fn unfinished(&self) -> Result<Vec<Waiting>, CommitError> {
        self.inner.unfinished().await
    }
    async fn signal(
        &self,
        id: OperationId,
        signal: Signal,
        effects: Vec<Write>,
    ) -> Result<bool, CommitError> {
        self.inner.signal(id, signal, effects).await
    }
    async fn note(&self, id: OperationId, epoch: i64, step: &Step) -> Result<(), CommitError> {
        self.inner.note(id, epoch, step).await
    }
}

/// The public endpoints without a router, as direct calls of the use cases.
struct Direct {
    control: WeakControl,
    plan: Arc<FaultPlan>,
}

impl Direct {
    fn control(&self) -> Result<Control, Failure> {
        self.control.upgrade().ok_or_else(|| Failure::retryable("gone", "the process is ending"))
    }

    /// Signs an address with the token's session and opens it.
    async fn open(
        &self,
        token: &str,
        key: &str,
        method: Method,
    ) -> Result<(Arc<dyn TenantObjects>, Timestamp), Failure> {
        let control = self.control()?;
        let session = control.verify_token(token).map_err(failed)?;
        let wish = SignObject { key: key.to_owned(), method, expires_in: 60 };
        let signed = control.sign_object(&session, &wish).await.map_err(failed)?;
        let opened = control.open_signed(&signed).await.map_err(failed)?;
        Ok((opened.objects, opened.at))
    }
}

fn failed(error: Error) -> Failure {
    Failure::retryable("smoke_test_failed", error)
}

#[async_trait]
impl Front for Direct {
    async fn sign_in(&self, code: &str) -> Result<String, Failure> {
        self.plan.strike("smoke_test", false).await?;
        Ok(self.control()?.sign_in(code, None).await.map_err(failed)?.access_token)
    }
    async fn me(&self, token: &str) -> Result<Value, Failure> {
        let control = self.control()?;
        let session = control.verify_token(token).map_err(failed)?;
        let me = control.me(&session).await.map_err(failed)?;
        let what = made(&format!("smoke_test of {}", me["tenant_id"].as_str().unwrap_or_default()));
        self.plan.begun(&what, "the smoke test");
        Ok(me)
    }
    async fn insert(&self, token: &str, table: &str, row: &Value) -> Result<Value, Failure> {
        let control = self.control()?;
        let session = control.verify_token(token).map_err(failed)?;
        let row = row.as_object().cloned().unwrap_or_default();
        control.insert_row(&session, table, row).await.map_err(failed)
    }
    async fn get(&self, token: &str, table: &str, id: &str) -> Result<Option<Value>, Failure> {
        let control = self.control()?;
        let session = control.verify_token(token).map_err(failed)?;
        match control.row(&session, table, id).await {
            Ok(row) => Ok(Some(row)),
            Err(error) if error.kind() == tenantry_control::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
    async fn store(&self, token: &str, key: &str, bytes: &[u8]) -> Result<(), Failure> {
        let (objects, at) = self.open(token, key, Method::Put).await?;
        let body = Box::pin(std::io::Cursor::new(bytes.to_vec()));
        objects.put(New { key, content_type: None, at }, body).await.map(drop)
    }
    async fn fetch(&self, token: &str, key: &str) -> Result<Vec<u8>, Failure> {
        let (objects, _) = self.open(token, key, Method::Get).await?;
        let content = objects.get(key, None).await?.ok_or_else(|| Failure::retryable("gone", "no object"))?;
        let (mut bytes, mut body) = (Vec::new(), content.body);
        body.read_to_end(&mut bytes).await.map_err(|why| Failure::retryable("gone", why))?;
        Ok(bytes)
    }
    async fn discard(&self, token: &str, key: &str) -> Result<(), Failure> {
        let (objects, _) = self.open(token, key, Method::Delete).await?;
        objects.delete(key).await.map(drop)
    }
    async fn delete(&self, token: &str, table: &str, id: &str) -> Result<(), Failure> {
        // An attempt interrupted here leaves a row behind.
        self.plan.strike("smoke_test", true).await?;
        let control = self.control()?;
        let session = control.verify_token(token).map_err(failed)?;
        control.delete_row(&session, table, id).await.map_err(failed)
    }
}
