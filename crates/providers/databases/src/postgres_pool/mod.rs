//! Provider `postgres_pool`: PostgreSQL tables that tenants share. This file implements the provider's verbs.
//! It rejects a tenant or role with another owner tag, and tables, views and functions that would show one
//! tenant's rows to another.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;
mod guard;
mod isolation;
mod partitions;
mod protection;
mod tables;
mod vetoes;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, Isolation, TenantId, Write};

use crate::postgres::{
    Name, ObservedSchema, PasswordRequest, Postgres, PostgresRows, RemovalCounts, TenantState, denies, fence,
    forget, holds, observed, outputs, transfer as rows, watch,
};
use client::Pool;
pub use config::{Config, Settings};
use tenantry_provider::data::{Canary, Data, TenantRows};
use tenantry_provider::fence::{Fence, Order};
use tenantry_provider::isolation::IsolationCheck;
use tenantry_provider::rotate::{Former, Retirement, Rotate, Rotated};
use tenantry_provider::settings;
use tenantry_provider::transfer::{Content, Sink, Source, Transfer};
use tenantry_provider::verbs::{
    Context, Ensured, Fault, Kind, Observed, Ownership, Provider, Removed, Rows, Spec,
};

const ISOLATION: Isolation = Isolation::Pool;

/// The provider.
#[derive(Clone)]
pub struct DatabasePostgresPool {
    name: Arc<str>,
    pool: Arc<Pool>,
}

impl DatabasePostgresPool {
    /// On these servers. Does not connect.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        Self { name: "postgres_pool".into(), pool: Arc::new(Pool::new(postgres)) }
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Opens a connection to the spec's rows, outside the pool.
    async fn rows_connection(&self, spec: &Spec) -> Result<rows::RowsConnection, Failure> {
        self.pool.ready().await?;
        let server = self.pool.postgres.main();
        self.pool.postgres.require_complete(server, spec, ISOLATION).await?;
        let database = Name::new(server.database())?;
        let mut connection = server.connect_to(&database).await?;
        let path = self.pool.postgres.main_path(&mut connection, guard::SCHEMA).await?;
        let lock = self.pool.postgres.owner(spec, ISOLATION)?.lock_name();
        Ok(rows::RowsConnection {
            connection,
            server: server.clone(),
            database,
            schema: guard::SCHEMA.to_owned(),
            path,
            isolation: ISOLATION,
            shared: Some(lock),
        })
    }
}

#[async_trait]
impl Data for DatabasePostgresPool {
    fn scoped(&self, tenant: TenantId) -> Arc<dyn TenantRows> {
        Arc::new(PostgresRows { location: self.pool.clone(), tenant })
    }

    fn canary(&self) -> Canary {
        self.pool.postgres.content.canary_row.clone()
    }
}

#[async_trait]
impl Fence for DatabasePostgresPool {
    async fn fence(&self, order: &Order) -> Result<(), Failure> {
        let postgres = &self.pool.postgres;
        let owner = postgres.owner_of_order(order, ISOLATION)?;
        fence(postgres.main(), &owner, order).await
    }

    async fn denies(&self, order: &Order) -> Result<Option<SuspensionMode>, Failure> {
        let postgres = &self.pool.postgres;
        denies(postgres.main(), &postgres.owner_of_order(order, ISOLATION)?).await
    }
}

#[async_trait]
impl Rotate for DatabasePostgresPool {
    async fn rotate(&self, context: &Context, spec: &Spec, former: Former) -> Result<Rotated, Failure> {
        let postgres = &self.pool.postgres;
        let main = postgres.main();
        let path = postgres.main_path(&mut *main.connection().await?, guard::SCHEMA).await?;
        postgres.rotate(main, (context, spec), ISOLATION, Some((main.database(), &path)), former).await
    }

    async fn retire(&self, rows: &dyn Rows, retirement: &Retirement) -> Result<Vec<Write>, Failure> {
        let postgres = &self.pool.postgres;
        let server = postgres.main();
        postgres.retire(server, rows, retirement, ISOLATION).await
    }
}

#[async_trait]
impl Transfer for DatabasePostgresPool {
    fn form(&self) -> &'static str {
        rows::FORM
    }

    async fn export(&self, _: &Context, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
        rows::export(self.rows_connection(spec).await?, spec, sink).await
    }

    async fn load(&self, _: &Context, spec: &Spec, source: &mut dyn Source) -> Result<Vec<Write>, Failure> {
        let _lock = self.pool.postgres.locks.lock(spec.resource).await;
        rows::load(self.rows_connection(spec).await?, spec, source).await
    }
}

#[async_trait]
impl Provider for DatabasePostgresPool {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Database
    }

    fn isolates(&self, isolation: Isolation) -> bool {
        isolation == ISOLATION
    }

    async fn start(&self) -> Result<(), Failure> {
        let postgres = &self.pool.postgres;
        tokio::spawn(watch(Arc::downgrade(postgres.main()), postgres.config.transaction_limit_seconds));
        Ok(())
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<settings::NoSettings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        self.pool.postgres.content.check(given)
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let postgres = &self.pool.postgres;
        let (owner, work, planned) = postgres.plan(context, spec, ISOLATION)?;
        let request = PasswordRequest::for_spec(context, spec).await?;
        let pool = self.pool.clone();
        let made = async move { pool.ensure(&owner, &work, &request).await };
        let issued = postgres.locks.run(spec.resource, made).await?;
        let main = postgres.main();
        let outputs = outputs(planned, main, main.database(), guard::SCHEMA, &issued.login);
        Ok(Ensured { outputs, writes: issued.writes(context, spec) })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let postgres = &self.pool.postgres;
        let owner = postgres.owner(spec, ISOLATION)?;
        if !postgres.main().is_set_up().await? {
            return Ok(Observed::Absent);
        }
        let mut connection = postgres.main().connection().await?;
        Ok(match owner.inspect(&mut connection).await? {
            Ownership::Absent => {
                Observed::absent_unless(holds(&mut connection, guard::SCHEMA, spec.tenant.id).await?)
            }
            Ownership::Foreign => Observed::Foreign,
            Ownership::Own(mut state) => {
                // The tables are shared, so policies fence a tenant, not privileges.
                state.shape = self.pool.recorded_shape(&mut connection).await?;
                let role = owner.right_holder(&state);
                let shared = TenantState { shape: state.shape.clone(), ..TenantState::default() };
                let mut seen = ObservedSchema::read(&mut connection, guard::SCHEMA, role, &shared).await?;
                seen.rights.extend(postgres.paths_of(&mut connection, &owner, &state).await?);
                observed(&postgres.content, &owner, &state, Some(seen))
            }
        })
    }

    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let postgres = &self.pool.postgres;
        let owner = postgres.owner(spec, ISOLATION)?;
        let pool = self.pool.clone();
        let logins = [owner.name.clone(), owner.second.clone()];
        let removed = async move { pool.remove(&owner).await };
        let RemovalCounts { rows, logins: count, .. } = postgres.locks.run(spec.resource, removed).await?;
        let writes = forget(&*context.rows, spec.tenant.id, &logins.each_ref(), None).await?;
        Ok(Removed { receipt: json!({ "database": spec.name, "rows": rows, "logins": count }), writes })
    }

    async fn probe(&self) -> Result<(), Failure> {
        let postgres = &self.pool.postgres;
        postgres.probe(postgres.main(), ISOLATION).await?;
        self.pool.ready().await.map(drop)
    }

    fn data(&self) -> Option<&dyn Data> {
        Some(self)
    }

    fn fence(&self) -> Option<&dyn Fence> {
        Some(self)
    }

    fn rotate(&self) -> Option<&dyn Rotate> {
        Some(self)
    }

    fn isolation(&self) -> Option<&dyn IsolationCheck> {
        Some(self)
    }

    fn transfer(&self) -> Option<&dyn Transfer> {
        Some(self)
    }
}
