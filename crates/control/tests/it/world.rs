//! A world in which processes come and go: registry, keyring, pool and outbox on disk, and a control plane over them
//! with a virtual clock, a ledger that can crash and providers that can fail.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_control::keyring::MasterKey;
use tenantry_control::store::StoreConfig;
use tenantry_control::{Control, ControlConfig, Error, Front, Parts, WeakControl};
use tenantry_engine::{
    Clock, Commit, CommitError, ExecutorConfig, Ledger, Run, Signal, Step, StepState, Waiting,
};
use tenantry_model::id::OperationId;
use tenantry_model::{Failure, Write};
use tenantry_providers::database_sqlite_pool::{self, DatabaseSqlitePool};
use tenantry_providers::{Registry, billing_builtin, config_builtin, identity_builtin, mail_outbox};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::crash_ledger::{CrashLedger, Faults};
use tenantry_testkit::virtual_clock::VirtualClock;

use crate::faulty::{FaultPlan, Faulty};

/// What survives every process.
pub struct World {
    folder: TempDir,
    registry: TestDatabase,
    pub clock: VirtualClock,
    pub plan: Arc<FaultPlan>,
    /// Resources whose step the ledger calls done: none of them may be made again.
    done: Arc<Mutex<BTreeSet<String>>>,
}

/// One process.
pub struct Process {
    pub control: Control,
    pub ledger: Arc<CrashLedger<Write>>,
}

impl World {
    /// On SQLite.
    pub fn sqlite() -> Self {
        Self::on(TestDatabase::sqlite())
    }

    /// On PostgreSQL; none, reported as skipped, where there is no server.
    pub async fn postgres() -> Option<Self> {
        Some(Self::on(TestDatabase::postgres().await?))
    }

    fn on(registry: TestDatabase) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let done = Arc::default();
        let plan = Arc::new(FaultPlan::new(Arc::clone(&done)));
        Self { folder, registry, clock: VirtualClock::start(), plan, done }
    }

    pub fn pool_file(&self) -> PathBuf {
        self.folder.path().join("tenants.db")
    }

    pub fn outbox(&self) -> PathBuf {
        self.folder.path().join("outbox")
    }

    pub fn registry_url(&self) -> &str {
        self.registry.url()
    }

    fn config(&self) -> ControlConfig {
        ControlConfig {
            store: StoreConfig { url: self.registry.url().to_owned(), readers: 4 },
            keyring_url: format!("sqlite://{}", self.folder.path().join("keyring.db").display()),
            templates: None,
            catalogue: None,
            region: "eu-central-1".to_owned(),
            locale: "en".to_owned(),
            public_url: "http://localhost".to_owned(),
            executor: ExecutorConfig::default(),
        }
    }

    /// A new process over what is there, with these faults of its ledger.
    pub async fn start(&self, faults: Faults) -> Result<Process, Error> {
        let failed = |failure: Failure| Error::internal(failure);
        let master =
            MasterKey::read_or_create(&self.folder.path().join("master.key")).map_err(Error::internal)?;
        let pool = DatabaseSqlitePool::new(database_sqlite_pool::Config::new(self.pool_file()))
            .await
            .map_err(failed)?;
        let providers = Registry::default()
            .add(Faulty::over(pool.clone(), self))
            .add(Faulty::over(identity_builtin::IdentityBuiltin::default(), self))
            .add(Faulty::over(config_builtin::ConfigBuiltin, self))
            .add(Faulty::over(billing_builtin::BillingBuiltin, self))
            .add(Faulty::over(
                mail_outbox::MailOutbox::new(mail_outbox::Config::new(self.outbox())).map_err(failed)?,
                self,
            ));
        let made: Arc<Mutex<Option<Arc<CrashLedger<Write>>>>> = Arc::default();
        let (slot, done) = (made.clone(), self.done.clone());
        let mut parts = Parts::new(master, providers);
        parts.data = Some(Arc::new(pool));
        parts.clock = Arc::new(self.clock.clone());
        parts.ledger = Some(Box::new(move |inner| {
            let ledger = Arc::new(CrashLedger::new(Arc::new(Watched { inner, done }), faults));
            *slot.lock() = Some(ledger.clone());
            ledger
        }));
        let died = async {
            loop {
                let ledger = made.lock().clone();
                match ledger {
                    Some(ledger) => return ledger.died().await,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        let control = tokio::select! {
            biased;
            control = Control::start(self.config(), parts) => control?,
            () = died => return Err(Error::unavailable("the process died while it started")),
        };
        control.set_front(Arc::new(Direct { control: control.downgrade(), plan: self.plan.clone() }));
        let ledger = made.lock().take().expect("the ledger was wrapped");
        Ok(Process { control, ledger })
    }

    /// Waits until nothing moves by itself.
    pub async fn quiet(&self) {
        let limit = self.clock.now() + Duration::from_secs(365 * 86_400);
        assert!(self.clock.quiet(limit).await, "it goes on for ever");
    }
}

/// A request for a starter tenant.
pub fn request(name: &str) -> Value {
    json!({
        "tenant_name": name, "locale": "de",
        "admin_user": { "email": format!("{}@example.com", name.replace(|c: char| !c.is_alphanumeric(), "")), "first_name": "Ada" },
        "subscription": { "plan": "starter" }
    })
}

/// A ledger that keeps book of what it calls done.
struct Watched {
    inner: Arc<dyn Ledger<Write>>,
    done: Arc<Mutex<BTreeSet<String>>>,
}

fn resource(step: &Step) -> Option<String> {
    Some(step.input.get("resource")?.as_str()?.to_owned())
}

#[async_trait]
impl Ledger<Write> for Watched {
    async fn begin_epoch(&self) -> Result<i64, CommitError> {
        self.inner.begin_epoch().await
    }
    async fn load(&self, id: OperationId) -> Result<Option<(Run, Vec<Signal>)>, CommitError> {
        self.inner.load(id).await
    }
    async fn commit(&self, commit: Commit<Write>) -> Result<(), CommitError> {
        // A detached step is done for its parent; its resource is made by the child.
        let runs = commit.children.iter().chain([&*commit.run]);
        let done =
            runs.flat_map(|run| &run.steps).filter(|s| s.state == StepState::Done && s.child.is_none());
        let done: Vec<String> = done.filter_map(resource).collect();
        self.inner.commit(commit).await?;
        self.done.lock().extend(done);
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

/// The public endpoints without a router: straight to the use cases behind them.
struct Direct {
    control: WeakControl,
    plan: Arc<FaultPlan>,
}

impl Direct {
    fn control(&self) -> Result<Control, Failure> {
        self.control.upgrade().ok_or_else(|| Failure::retryable("gone", "the process is ending"))
    }
}

fn failed(error: Error) -> Failure {
    Failure::retryable("smoke_test_failed", error)
}

#[async_trait]
impl Front for Direct {
    async fn sign_in(&self, code: &str) -> Result<String, Failure> {
        self.plan.strike("smoke_test", true).await?;
        Ok(self.control()?.sign_in(code).await.map_err(failed)?.access_token)
    }
    async fn me(&self, token: &str) -> Result<Value, Failure> {
        let control = self.control()?;
        let session = control.verify_token(token).map_err(failed)?;
        control.me(&session).await.map_err(failed)
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
            Err(error) if error.kind == tenantry_control::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
    async fn delete(&self, token: &str, table: &str, id: &str) -> Result<(), Failure> {
        let control = self.control()?;
        let session = control.verify_token(token).map_err(failed)?;
        control.delete_row(&session, table, id).await.map_err(failed)
    }
}
