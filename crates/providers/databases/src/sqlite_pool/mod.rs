//! Provider `sqlite_pool`: one SQLite file for all tenants, with `tenant_id` in every table. This file
//! implements the provider's verbs. It rejects a schema in which a tenant could reach another tenant's rows.
//!
#![doc = include_str!("docs.md")]

mod config;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tenantry_model::{Failure, Isolation, TenantId, Write};
use tenantry_sqlite::{PurgeError, Purger};
use tokio::sync::OnceCell;

use crate::content::{Content, seed_failure};
use crate::sqlite::client::query;
use crate::sqlite::rows::{LocateFile, SqliteRows};
use crate::sqlite::writer::Work;
use crate::sqlite::{self, OpenDatabase, RecordedTenant, catalogue, client};
pub use config::Config;
use tenantry_provider::data::{Canary, Data, TenantRows};
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::purge::{Purge, Purged};
use tenantry_provider::resource_locks::blocking;
use tenantry_provider::settings;
use tenantry_provider::transfer::{self, Sink, Source, Transfer};
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};

/// Number of connections that read.
const READERS: u32 = 4;

/// The type, and the name of its default instance.
const NAME: &str = "sqlite_pool";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Database,
    about: "Tables that all tenants share, in a SQLite file",
    parts: &[""],
    always: true,
    schema: settings::schema::<Config>,
    defaults: |context| json!({ "file": context.path("tenants.db"), "migrations": context.migrations, "seeds": context.seeds }),
    check: factory::no_check,
    build: |context, config| {
        Box::pin(async move {
            Ok(factory::one(DatabaseSqlitePool::new(factory::config(config)?).await?.named(&context.name)))
        })
    },
};

/// The provider.
#[derive(Clone)]
pub struct DatabaseSqlitePool {
    name: Arc<str>,
    pool: Arc<Inner>,
}

struct Inner {
    config: Config,
    content: Arc<Content>,
    open: OnceCell<Arc<OpenDatabase>>,
    purger: Purger,
}

impl DatabaseSqlitePool {
    /// Reads the migrations and applies them in memory. Returns an error if they cannot be read, do not run,
    /// or do not keep tenants apart. The file is opened and migrated when it is first needed, so a missing
    /// folder or a full disk fails a step, which is retried, not the start.
    pub async fn new(config: Config) -> Result<Self, Failure> {
        let content = Arc::new(sqlite::content(&config.set, &config.migrations, &config.seeds).await?);
        let purger = Purger::new(&config.file);
        let pool = Arc::new(Inner { config, content, open: OnceCell::new(), purger });
        Ok(Self { name: NAME.into(), pool })
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }
}

impl Inner {
    /// The open file; opens and migrates it when first called. Cancel-safe: the next call continues.
    async fn ready(&self) -> Result<&Arc<OpenDatabase>, Failure> {
        self.open
            .get_or_try_init(|| async {
                let Config { file, max_bytes, .. } = &self.config;
                let new = file.clone();
                blocking(move || client::create(&new)).await?;
                let open = OpenDatabase::new(file, *max_bytes, &self.content, READERS).await?;
                open.write_canary(&self.content).await?;
                Ok(Arc::new(open))
            })
            .await
    }
}

#[async_trait]
impl LocateFile for Inner {
    async fn open(&self, _: TenantId) -> Result<Arc<OpenDatabase>, Failure> {
        self.ready().await.cloned()
    }
}

#[async_trait]
impl Data for DatabaseSqlitePool {
    fn scoped(&self, tenant: TenantId) -> Arc<dyn TenantRows> {
        Arc::new(SqliteRows { location: self.pool.clone(), tenant })
    }

    fn canary(&self) -> Canary {
        self.pool.content.canary_row.clone()
    }
}

#[async_trait]
impl Transfer for DatabaseSqlitePool {
    fn form(&self) -> &'static str {
        sqlite::transfer::FORM
    }

    async fn export(
        &self,
        _: &Context,
        spec: &Spec,
        sink: &mut dyn Sink,
    ) -> Result<transfer::Content, Failure> {
        self.pool.ready().await?;
        let file = self.pool.config.file.clone();
        sqlite::transfer::export(&file, spec, sink).await
    }

    async fn load(&self, _: &Context, spec: &Spec, source: &mut dyn Source) -> Result<Vec<Write>, Failure> {
        self.pool.ready().await?;
        let file = self.pool.config.file.clone();
        sqlite::transfer::load(&file, self.pool.config.max_bytes, spec, source).await?;
        Ok(Vec::new())
    }
}

#[async_trait]
impl Purge for DatabaseSqlitePool {
    async fn purge(&self) -> Result<Vec<Purged>, Failure> {
        if !self.pool.config.file.exists() && self.pool.open.get().is_none() {
            return Ok(Vec::new());
        }
        // Opens the file in its write-ahead mode.
        self.pool.ready().await?;
        self.pool.purger.purge().await.map_err(purge_failure)
    }
}

fn purge_failure(error: PurgeError) -> Failure {
    match error {
        PurgeError::Busy => Failure::retryable("busy", error),
        PurgeError::Failed(error) => client::failure(error),
        PurgeError::Stopped => Failure::retryable("stopped", error),
    }
}

#[async_trait]
impl Provider for DatabaseSqlitePool {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Database
    }

    fn isolates(&self, isolation: Isolation) -> bool {
        isolation == Isolation::Pool
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<settings::NoSettings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        self.pool.content.check(given)
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let (work, outputs) = self.pool.content.plan(context, spec, "pool")?;
        let open = self.pool.ready().await?;
        open.writer.run(Work::Ensure(Box::new(work))).await.map_err(seed_failure)?;
        Ok(Ensured { outputs, writes: Vec::new() })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        if !self.pool.config.file.exists() && self.pool.open.get().is_none() {
            return Ok(Observed::Absent);
        }
        let open = self.pool.ready().await?;
        let (tenant, name, claim) = (spec.tenant.id.to_string(), spec.name.clone(), spec.claim.clone());
        let seen = open.read(move |connection| {
            let found = query(
                connection,
                "SELECT tenant_id = ?1 AND claim = ?3, completed, seed, (SELECT version FROM _migrations ORDER BY position DESC LIMIT 1)
                 FROM _tenants WHERE tenant_id = ?1 OR name = ?2",
                [&tenant, &name, &claim],
                |row| Ok((row.get::<_, bool>(0)?, (row.get(1)?, row.get(2)?, row.get(3)?))),
            )?;
            if !found.iter().all(|(is_own, _)| *is_own) {
                return Ok(Err(Observed::Foreign));
            }
            let Some((_, (completed, seed, version))) = found.into_iter().next() else {
                return Ok(Err(Observed::absent_unless(catalogue::holds(connection, &tenant)?)));
            };
            Ok(Ok(RecordedTenant { completed, seed, version, shape: catalogue::shape(connection)? }))
        });
        Ok(seen.await?.map_or_else(|other| other, |seen| seen.observed(&self.pool.content, Vec::new())))
    }

    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let counts = if self.pool.config.file.exists() || self.pool.open.get().is_some() {
            let open = self.pool.ready().await?;
            let work = Work::Remove { tenant: spec.tenant.id.to_string(), tag: spec.claim.clone() };
            open.writer.run(work).await?
        } else {
            Value::Object(Map::new())
        };
        Ok(Removed { receipt: json!({ "database": spec.name, "rows": counts }), writes: Vec::new() })
    }

    async fn probe(&self) -> Result<(), Failure> {
        self.pool.ready().await?.writer.run(Work::Touch).await.map(drop)
    }

    fn data(&self) -> Option<&dyn Data> {
        Some(self)
    }

    fn transfer(&self) -> Option<&dyn Transfer> {
        Some(self)
    }

    fn purge(&self) -> Option<&dyn Purge> {
        Some(self)
    }
}
