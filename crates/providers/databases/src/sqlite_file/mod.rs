//! Provider `sqlite_file`: a SQLite file for each tenant. This file implements the provider's verbs and finds
//! a tenant's open file. It rejects a file with another owner tag, and a schema that the pool would reject.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;
mod warm_pool;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tenantry_model::{Failure, Isolation, TenantId, Write};
use tokio::sync::OnceCell;

use crate::content::{Content, Ensure, seed_failure};
use crate::sqlite::rows::{LocateFile, SqliteRows};
use crate::sqlite::writer::Work;
use crate::sqlite::{self, OpenDatabase};
pub use config::Config;
use tenantry_provider::data::{Canary, Data, TenantRows};
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::open_files::OpenFiles;
use tenantry_provider::resource_folder::{self, ResourceFolder};
use tenantry_provider::resource_locks::{ResourceLocks, blocking};
use tenantry_provider::settings;
use tenantry_provider::transfer::{self, Sink, Source, Transfer};
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Ownership, Provider, Removed, Spec};
use warm_pool::WarmPool;

/// Number of connections to a file that read.
const READERS: u32 = 1;

/// Databases that a server keeps ready: enough for a few onboardings at once, in less than a megabyte.
const WARM: u16 = 4;
/// The type, and the name of its default instance.
const NAME: &str = "sqlite_file";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Database,
    about: "A SQLite file for each tenant",
    parts: &[""],
    always: true,
    schema: settings::schema::<Config>,
    defaults: |context| {
        let (migrations, seeds) = (&context.migrations, &context.seeds);
        json!({ "folder": context.path("tenants"), "migrations": migrations, "seeds": seeds, "warm": WARM })
    },
    check: factory::no_check,
    build: |context, config| {
        Box::pin(async move {
            Ok(factory::one(DatabaseSqliteFile::new(factory::config(config)?).await?.named(&context.name)))
        })
    },
};

/// The provider.
#[derive(Clone)]
pub struct DatabaseSqliteFile {
    name: Arc<str>,
    files: Arc<Inner>,
}

struct Inner {
    config: Config,
    content: Arc<Content>,
    warm_pool: WarmPool,
    locks: ResourceLocks,
    canary: OnceCell<Arc<OpenDatabase>>,
    open: OpenFiles<OpenDatabase>,
}

impl DatabaseSqliteFile {
    /// Reads the migrations and applies them in memory. Returns an error if they cannot be read, do not run,
    /// or do not keep tenants apart. Touches no file.
    pub async fn new(config: Config) -> Result<Self, Failure> {
        let content = sqlite::content(&config.set, &config.migrations, &config.seeds).await?;
        let content = Arc::new(content);
        let warm_pool = WarmPool::new(&config, content.clone());
        let open = OpenFiles::new(config.open_files);
        let canary = OnceCell::new();
        let files =
            Arc::new(Inner { config, content, warm_pool, locks: ResourceLocks::default(), canary, open });
        Ok(Self { name: NAME.into(), files })
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Returns when the warm-pool fills requested so far are finished, whether they succeeded or not.
    pub async fn refilled(&self) {
        self.files.warm_pool.filled().await;
    }

    fn folder_of(&self, spec: &Spec) -> Result<ResourceFolder, Failure> {
        ResourceFolder::new(&self.files.config.folder, &spec.name, spec.resource)
    }
}

impl DatabaseSqliteFile {
    /// Path of the spec's file. Returns an error if there is none with its owner tag.
    async fn own_file(&self, spec: &Spec) -> Result<PathBuf, Failure> {
        let target = self.folder_of(spec)?;
        match client::inspect(&target, spec).await? {
            Ownership::Own(_) => Ok(client::file(&target.path())),
            Ownership::Absent | Ownership::Foreign => Err(no_such_tenant()),
        }
    }
}

fn no_such_tenant() -> Failure {
    Failure::invalid(
        "no_such_tenant",
        "the tenant has no database in this folder; repair the tenant if it should",
    )
}

fn name_taken(why: &str) -> Failure {
    Failure::fatal(
        "name_taken",
        format!("{why}, which was not touched; remove it, or change `names` in the template"),
    )
}

impl Inner {
    /// The file of the canary row, set up once per process.
    async fn canary(&self) -> Result<&Arc<OpenDatabase>, Failure> {
        self.canary
            .get_or_try_init(|| async {
                let root = self.config.folder.clone();
                let file = blocking(move || {
                    let folder = resource_folder::private_folder(&root)
                        .map_err(|error| resource_folder::failure(&root, &error))?;
                    let file = folder.join("canary.db");
                    sqlite::client::create(&file)?;
                    Ok(file)
                })
                .await?;
                let open = OpenDatabase::new(&file, None, &self.content, READERS).await?;
                open.write_canary(&self.content).await?;
                Ok(Arc::new(open))
            })
            .await
    }

    fn file_of(&self, tenant: TenantId) -> Option<PathBuf> {
        let name = resource_folder::linked(&self.config.folder, tenant)?;
        Some(client::file(&self.config.folder.join(name)))
    }

    async fn ensure(&self, target: &ResourceFolder, spec: &Spec, work: Ensure) -> Result<(), Failure> {
        self.canary().await?;
        let other = resource_folder::linked(&self.config.folder, spec.tenant.id)
            .filter(|name| *name != spec.name && self.config.folder.join(name).exists());
        if other.is_some() {
            return Err(name_taken("the tenant has a database of another name in this folder"));
        }
        let mut found = client::inspect(target, spec).await?;
        if found == Ownership::Absent {
            if client::make(target, self.config.max_bytes, &self.content, &self.warm_pool, work.clone())
                .await?
            {
                return self.link(target, spec).await;
            }
            found = client::inspect(target, spec).await?;
        }
        match found {
            Ownership::Absent => Err(Failure::retryable(
                "cannot_open",
                "the tenant's file was removed while it was created; try again",
            )
            .wrong_answer()),
            Ownership::Foreign => Err(name_taken("a database with another owner tag has this name")),
            Ownership::Own(_) => {
                self.link(target, spec).await?;
                let open = self.open(spec.tenant.id).await?;
                open.writer.run(Work::Ensure(Box::new(work))).await.map(drop).map_err(seed_failure)
            }
        }
    }

    async fn link(&self, target: &ResourceFolder, spec: &Spec) -> Result<(), Failure> {
        let (target, tenant) = (target.clone(), spec.tenant.id);
        if blocking(move || target.link(tenant)).await? {
            return Ok(());
        }
        Err(name_taken("the tenant has a database of another name in this folder"))
    }

    async fn remove(&self, target: &ResourceFolder, spec: &Spec) -> Result<Value, Failure> {
        let is_own = matches!(client::inspect(target, spec).await?, Ownership::Own(_));
        let file = client::file(&target.path());
        let counted = file.clone();
        let rows = match is_own {
            true => blocking(move || client::count(&counted)).await?,
            false => Value::Object(Map::new()),
        };
        self.open.forget(&file);
        let (target, tenant) = (target.clone(), spec.tenant.id);
        let size = blocking(move || {
            if !is_own {
                if !target.exists()? {
                    target.unlink(tenant)?;
                }
                return target.sweep().map(|()| resource_folder::Size::default());
            }
            target.unlink(tenant)?;
            target.remove()
        })
        .await?;
        Ok(json!({ "database": spec.name, "rows": rows, "files": size.files, "bytes": size.bytes }))
    }
}

#[async_trait]
impl LocateFile for Inner {
    async fn open(&self, tenant: TenantId) -> Result<Arc<OpenDatabase>, Failure> {
        if tenant == self.content.canary_row.tenant {
            return self.canary().await.cloned();
        }
        let file = self.file_of(tenant).ok_or_else(no_such_tenant)?;
        let open = OpenDatabase::new(&file, self.config.max_bytes, &self.content, READERS);
        self.open.get(&file, open).await?.ok_or_else(no_such_tenant)
    }
}

#[async_trait]
impl Data for DatabaseSqliteFile {
    fn scoped(&self, tenant: TenantId) -> Arc<dyn TenantRows> {
        Arc::new(SqliteRows { location: self.files.clone(), tenant })
    }

    fn canary(&self) -> Canary {
        self.files.content.canary_row.clone()
    }
}

#[async_trait]
impl Transfer for DatabaseSqliteFile {
    fn form(&self) -> &'static str {
        sqlite::transfer::FORM
    }

    async fn export(
        &self,
        _: &Context,
        spec: &Spec,
        sink: &mut dyn Sink,
    ) -> Result<transfer::Content, Failure> {
        let file = self.own_file(spec).await?;
        sqlite::transfer::export(&file, spec, sink).await
    }

    async fn load(&self, _: &Context, spec: &Spec, source: &mut dyn Source) -> Result<Vec<Write>, Failure> {
        let _lock = self.files.locks.lock(spec.resource).await;
        let file = self.own_file(spec).await?;
        sqlite::transfer::load(&file, self.files.config.max_bytes, spec, source).await?;
        Ok(Vec::new())
    }
}

#[async_trait]
impl Provider for DatabaseSqliteFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Database
    }

    fn isolates(&self, isolation: Isolation) -> bool {
        isolation != Isolation::Pool
    }

    async fn start(&self) -> Result<(), Failure> {
        self.files.warm_pool.start();
        Ok(())
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<settings::NoSettings>()
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        tenantry_provider::resource_folder::check_folder_name(name).map_err(|failure| failure.message)
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        self.files.content.check(given)
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let target = self.folder_of(spec)?;
        let (work, outputs) = self.files.content.plan(context, spec, "database")?;
        let (files, owned) = (self.files.clone(), spec.clone());
        let ensured = async move { files.ensure(&target, &owned, work).await };
        self.files.locks.run(spec.resource, ensured).await?;
        Ok(Ensured { outputs, writes: Vec::new() })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let target = self.folder_of(spec)?;
        let seen = match client::inspect(&target, spec).await? {
            Ownership::Absent => {
                return blocking(move || target.has_remains()).await.map(Observed::absent_unless);
            }
            Ownership::Foreign => return Ok(Observed::Foreign),
            Ownership::Own(seen) => seen,
        };
        let linked = resource_folder::linked(&self.files.config.folder, spec.tenant.id);
        let lost =
            (linked.as_deref() != Some(&*spec.name)).then(|| "the link to its file is missing".to_owned());
        Ok(seen.observed(&self.files.content, lost.into_iter().collect()))
    }

    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let target = self.folder_of(spec)?;
        let (files, owned) = (self.files.clone(), spec.clone());
        let removed = async move { files.remove(&target, &owned).await };
        let receipt = self.files.locks.run(spec.resource, removed).await?;
        Ok(Removed { receipt, writes: Vec::new() })
    }

    async fn probe(&self) -> Result<(), Failure> {
        self.files.canary().await?.writer.run(Work::Touch).await?;
        let root = self.files.config.folder.clone();
        blocking(move || resource_folder::probe(&root)).await
    }

    fn data(&self) -> Option<&dyn Data> {
        Some(self)
    }

    fn transfer(&self) -> Option<&dyn Transfer> {
        Some(self)
    }
}
