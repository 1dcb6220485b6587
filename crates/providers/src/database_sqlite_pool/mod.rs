//! The SQLite pool: one file, all tenants, `tenant_id` in every table. This file is the provider's verbs.
//! Refuses a schema in which one tenant could reach another's rows.
//!
#![doc = include_str!("docs.md")]

mod catalogue;
mod client;
mod config;
mod rows;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::SqlitePoolOptions;
use tenantry_model::{Failure, FailureClass, TenantId, Timestamp};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::data::{Canary, Data, TenantRows};
use crate::files::Files;
use crate::migrations::{self, Migration, hex};
use crate::seeds::{Languages, Seed};
use crate::settings;
use crate::verbs::{Context, Ensured, Fault, Kind, Observed, Person, Provider, Removed, Spec, Tenant};
use catalogue::Catalogue;
pub use config::{Config, Settings};
use writer::{Ensure, Work, Writer};

/// Connections that read.
const READERS: u32 = 4;
/// Name and owner mark of the tenant that nobody is; no planned name or claim looks like it.
const CANARY: &str = "canary";

/// The provider.
#[derive(Clone)]
pub struct DatabaseSqlitePool {
    pool: Arc<Inner>,
}

struct Inner {
    config: Config,
    migrations: Vec<Migration>,
    /// What the migrations make, found out in memory.
    planned: Catalogue,
    files: Files,
    seeds: Mutex<HashMap<String, Arc<Languages<Prepared>>>>,
    canary: Prepared,
    canary_row: Canary,
    open: OnceCell<Open>,
}

/// The pool at work.
struct Open {
    catalogue: Arc<Catalogue>,
    writer: Writer,
    reads: sqlx::SqlitePool,
}

/// A seed with the statement of each of its blocks.
struct Prepared {
    seed: Seed,
    statements: Vec<Arc<str>>,
}

impl Prepared {
    fn new(seed: Seed) -> Self {
        let statements = seed
            .blocks
            .iter()
            .map(|block| writer::insert_statement(&block.table, &block.columns).into())
            .collect();
        Self { seed, statements }
    }

    fn rows(&self, tenant: &Tenant) -> Result<Vec<(Arc<str>, String)>, Failure> {
        let blocks = self.statements.iter().zip(&self.seed.blocks);
        blocks
            .map(|(sql, block)| {
                let mut rows = String::new();
                self.seed.render(block, tenant, &mut rows)?;
                Ok((sql.clone(), rows))
            })
            .collect()
    }
}

impl DatabaseSqlitePool {
    /// Reads the migrations and tries them in memory; fails if they cannot be read, do not run, or do not keep tenants
    /// apart. The file itself is opened, and migrated, when it is first needed: a folder that is not there yet or a full
    /// disk is a failure of the step, which is tried again, not of the start.
    pub async fn new(config: Config) -> Result<Self, Failure> {
        let migrations = migrations::load(&Files::migrations(config.migrations.as_deref()), &config.set)?;
        let planned = client::rehearse(&migrations).await?;
        let files = Files::seeds(config.seeds.as_deref());
        // An operator's folder of seeds fits the operator's tables, and then so does its canary.
        let text = files.read("canary.yaml")?.ok_or_else(|| {
            Failure::fatal("no_canary", "the folder of seeds has no canary.yaml: one table with one row, with an id that no tenant uses")
        })?;
        let canary = Seed::parse(CANARY, &text)
            .map_err(|why| Failure::fatal("bad_seed", format!("canary.yaml: {why}")))?;
        let canary_row = canary_row(&canary)?;
        let faults = unknown_columns(&planned, &canary);
        if let Some(fault) = faults.first() {
            return Err(Failure::fatal("bad_seed", format!("canary.yaml: {fault}")));
        }
        Ok(Self {
            pool: Arc::new(Inner {
                config,
                migrations,
                planned,
                files,
                seeds: Mutex::default(),
                canary: Prepared::new(canary),
                canary_row,
                open: OnceCell::new(),
            }),
        })
    }
}

/// The tenant of the canary: a moment before any real tenant.
fn canary_tenant() -> Tenant {
    Tenant {
        id: TenantId::from_uuid(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000)),
        slug: CANARY.to_owned(),
        name: CANARY.to_owned(),
        plan: String::new(),
        region: String::new(),
        locale: String::new(),
        admin: Person::default(),
    }
}

fn canary_row(seed: &Seed) -> Result<Canary, Failure> {
    let found = seed.first_row().and_then(|(table, row)| {
        let id = row.get("id")?.as_str()?.to_owned();
        Some(Canary { tenant: canary_tenant().id, table: table.to_owned(), id, row })
    });
    found.ok_or_else(|| {
        Failure::fatal("bad_seed", "canary.yaml: its first row must have a fixed text as `id`")
    })
}

/// What a seed names that the tables do not have.
fn unknown_columns(catalogue: &Catalogue, seed: &Seed) -> Vec<String> {
    let mut faults = Vec::new();
    for block in &seed.blocks {
        let Some(table) = catalogue.tables.get(&block.table) else {
            faults.push(format!("there is no table `{}`", block.table));
            continue;
        };
        for column in &block.columns {
            if table.column(column).is_none_or(|column| column.generated) {
                faults.push(format!("`{}` cannot be given `{column}`", block.table));
            }
        }
    }
    faults
}

impl Inner {
    /// The open pool; opens and migrates it the first time. Safe to drop: the next call goes on.
    async fn ready(&self) -> Result<&Open, Failure> {
        self.open
            .get_or_try_init(|| async {
                let catalogue = Arc::new(client::open(&self.config, &self.migrations).await?);
                let options = client::options(&self.config);
                let writer = Writer::start(options.clone(), catalogue.clone()).await?;
                self.stand_canary(&writer).await?;
                let reads = SqlitePoolOptions::new()
                    .max_connections(READERS)
                    .connect_lazy_with(options.pragma("query_only", "ON"));
                Ok(Open { catalogue, writer, reads })
            })
            .await
    }

    /// Makes the canary anew: its row may be another one than it was when the file was made, and a smoke test that looks
    /// for a row that is not there would prove nothing.
    async fn stand_canary(&self, writer: &Writer) -> Result<(), Failure> {
        let tenant = canary_tenant();
        let canary = Ensure {
            tenant: tenant.id.to_string(),
            name: CANARY.to_owned(),
            claim: CANARY.to_owned(),
            resource: CANARY.to_owned(),
            seed: None,
            at: Timestamp::now().to_string(),
            rows: self.canary.rows(&tenant)?,
        };
        writer.run(Work::Remove { tenant: canary.tenant.clone(), claim: CANARY.to_owned() }).await?;
        writer.run(Work::Ensure(Box::new(canary))).await.map(drop)
    }

    fn seed(&self, name: &str) -> Result<Arc<Languages<Prepared>>, Failure> {
        if let Some(seed) = self.seeds.lock().get(name) {
            return Ok(seed.clone());
        }
        let languages = Languages::load(&self.files, name)?;
        if let Some(fault) = languages.iter().find_map(|seed| {
            let fault = unknown_columns(&self.planned, seed).into_iter().next()?;
            Some(format!("{name}/{}.yaml: {fault}", seed.locale))
        }) {
            return Err(Failure::invalid("bad_seed", fault));
        }
        let prepared = Arc::new(languages.map(Prepared::new));
        self.seeds.lock().insert(name.to_owned(), prepared.clone());
        Ok(prepared)
    }

    fn last_version(&self) -> &str {
        self.migrations.last().map_or("", |migration| &migration.version)
    }
}

#[async_trait]
impl Data for DatabaseSqlitePool {
    fn scoped(&self, tenant: TenantId) -> Arc<dyn TenantRows> {
        Arc::new(rows::Scoped { pool: self.pool.clone(), tenant })
    }

    fn canary(&self) -> Canary {
        self.pool.canary_row.clone()
    }
}

#[async_trait]
impl Provider for DatabaseSqlitePool {
    fn name(&self) -> &'static str {
        "sqlite_pool"
    }

    fn kind(&self) -> Kind {
        Kind::Database
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<Settings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        let settings: Settings = match settings::check(given) {
            Ok(settings) => settings,
            Err(faults) => return faults,
        };
        let mut faults = Vec::new();
        if settings.migrations != self.pool.config.set {
            let message = format!("this pool is made of the migrations `{}`", self.pool.config.set);
            faults.push(Fault { path: "migrations".to_owned(), message });
        }
        if let Some(Err(failure)) = settings.seed.map(|seed| self.rehearse_seed(&seed)) {
            faults.push(Fault { path: "seed".to_owned(), message: failure.message });
        }
        faults
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let settings: Settings = settings::of(spec)?;
        let mut locale = None;
        let mut rows = Vec::new();
        if let Some(name) = &settings.seed {
            let languages = self.pool.seed(name)?;
            if let Some(prepared) = languages.pick(&spec.tenant.locale) {
                locale = Some(prepared.seed.locale.clone());
                rows = prepared.rows(&spec.tenant)?;
            }
        }
        let open = self.pool.ready().await?;
        let work = Ensure {
            tenant: spec.tenant.id.to_string(),
            name: spec.name.clone(),
            claim: spec.claim.clone(),
            resource: spec.resource.to_string(),
            seed: settings.seed.clone(),
            at: context.now.to_string(),
            rows,
        };
        // Rows that the tables refuse come from a seed that does not fit them: trying again will not help.
        open.writer.run(Work::Ensure(Box::new(work))).await.map_err(|failure| match failure.class {
            FailureClass::Invalid => Failure::invalid("bad_seed", failure.message),
            _ => failure,
        })?;
        let outputs = json!({
            "database": spec.name,
            "isolation": "pool",
            "migrations": settings.migrations,
            "version": self.pool.last_version(),
            "seed": settings.seed,
            "locale": locale,
            "canary": { "table": self.pool.canary_row.table, "id": self.pool.canary_row.id },
        });
        Ok(Ensured { outputs, writes: Vec::new() })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        if !self.pool.config.file.exists() && self.pool.open.get().is_none() {
            return Ok(Observed::Absent);
        }
        let open = self.pool.ready().await?;
        let mut connection = open.reads.acquire().await.map_err(client::failure)?;
        let found = sqlx::query(
            "SELECT tenant_id, claim, seed, completed, (SELECT version FROM _migrations ORDER BY position DESC LIMIT 1) AS version
             FROM _tenants WHERE tenant_id = ?1 OR name = ?2",
        )
        .bind(spec.tenant.id.to_string())
        .bind(&spec.name)
        .fetch_all(&mut *connection)
        .await
        .map_err(client::failure)?;
        let Some(row) = found.first() else { return Ok(Observed::Absent) };
        let ours = |row: &sqlx::sqlite::SqliteRow| {
            row.get::<&str, _>("claim") == spec.claim
                && row.get::<&str, _>("tenant_id") == spec.tenant.id.to_string()
        };
        if !found.iter().all(ours) {
            return Ok(Observed::Foreign);
        }
        let schema = catalogue::fingerprint(&mut connection).await?;
        let completed: Option<&str> = row.get("completed");
        let version: Option<String> = row.get("version");
        let healthy = completed.is_some()
            && schema == open.catalogue.fingerprint
            && version.as_deref() == Some(self.pool.last_version());
        let seed: Option<&str> = row.get("seed");
        let seen = format!("{schema} {} {}", seed.unwrap_or_default(), completed.unwrap_or_default());
        Ok(Observed::Present { healthy, version, fingerprint: hex(&Sha256::digest(seen)) })
    }

    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let counts = if self.pool.config.file.exists() || self.pool.open.get().is_some() {
            let open = self.pool.ready().await?;
            let work = Work::Remove { tenant: spec.tenant.id.to_string(), claim: spec.claim.clone() };
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
}

impl DatabaseSqlitePool {
    /// Reads a seed in every language and fills it in for a tenant that does not exist.
    fn rehearse_seed(&self, name: &str) -> Result<(), Failure> {
        let languages = self.pool.seed(name)?;
        let tenant = canary_tenant();
        languages.iter().try_for_each(|prepared| prepared.rows(&tenant).map(drop))
    }
}
