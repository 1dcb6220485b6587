//! Tables on PostgreSQL that tenants share. This file is the provider's verbs.
//! Refuses a tenant or role that is somebody else's, and tables, views and functions that would show one tenant's rows to another.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;
mod guard;
mod isolation;
mod partitions;
mod tables;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_model::suspension::Grade;
use tenantry_model::{Failure, Isolation, TenantId, Write};

use crate::database_postgres::{
    Found, Handout, Name, Postgres, Removal, Scoped, Seen, denies, fence, forget, holds, observed, outputs,
    portable as rows,
};
use client::Pool;
pub use config::{Config, Settings};
use tenantry_provider::data::{Canary, Data, TenantRows};
use tenantry_provider::fence::{Fence, Order};
use tenantry_provider::isolation::IsolationCheck;
use tenantry_provider::portable::{Content, Portable, Sink, Source};
use tenantry_provider::rotate::{Former, Retirement, Rotate, Rotated};
use tenantry_provider::settings;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Rows, Spec};

const ISOLATION: Isolation = Isolation::Pool;

/// The provider.
#[derive(Clone)]
pub struct DatabasePostgresPool {
    name: Arc<str>,
    pool: Arc<Pool>,
}

impl DatabasePostgresPool {
    /// Over these servers. Connects to nothing.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        Self { name: "postgres_pool".into(), pool: Arc::new(Pool::new(postgres)) }
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// A connection of its own to the database with the spec's rows.
    async fn inside(&self, spec: &Spec) -> Result<rows::Inside, Failure> {
        self.pool.ready().await?;
        let server = self.pool.postgres.main();
        self.pool.postgres.must_stand(server, spec, ISOLATION).await?;
        let connection = server.connect_to(&Name::new(server.database())?).await?;
        let turn = self.pool.postgres.owner(spec, ISOLATION)?.word();
        Ok(rows::Inside { connection, schema: guard::SCHEMA.to_owned(), shared: Some(turn) })
    }
}

#[async_trait]
impl Data for DatabasePostgresPool {
    fn scoped(&self, tenant: TenantId) -> Arc<dyn TenantRows> {
        Arc::new(Scoped { home: self.pool.clone(), tenant })
    }

    fn canary(&self) -> Canary {
        self.pool.postgres.content.canary_row.clone()
    }
}

#[async_trait]
impl Fence for DatabasePostgresPool {
    async fn fence(&self, order: &Order) -> Result<(), Failure> {
        let postgres = &self.pool.postgres;
        let owner = postgres.fenced(order, ISOLATION)?;
        fence(postgres.main(), &owner, order).await
    }

    async fn denies(&self, order: &Order) -> Result<Option<Grade>, Failure> {
        let postgres = &self.pool.postgres;
        denies(postgres.main(), &postgres.fenced(order, ISOLATION)?).await
    }
}

#[async_trait]
impl Rotate for DatabasePostgresPool {
    async fn rotate(&self, context: &Context, spec: &Spec, former: Former) -> Result<Rotated, Failure> {
        let postgres = &self.pool.postgres;
        let server = postgres.main();
        postgres.rotate(server, (context, spec), ISOLATION, Some(guard::SCHEMA), former).await
    }

    async fn retire(&self, rows: &dyn Rows, retirement: &Retirement) -> Result<Vec<Write>, Failure> {
        let postgres = &self.pool.postgres;
        let server = postgres.main();
        postgres.retire(server, rows, retirement, ISOLATION).await
    }
}

#[async_trait]
impl Portable for DatabasePostgresPool {
    fn form(&self) -> &'static str {
        rows::FORM
    }

    async fn export(&self, _: &Context, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
        rows::export(self.inside(spec).await?, spec, sink).await
    }

    async fn load(&self, _: &Context, spec: &Spec, source: &mut dyn Source) -> Result<Vec<Write>, Failure> {
        let _turn = self.pool.postgres.lanes.turn(spec.resource).await;
        rows::load(self.inside(spec).await?, spec, source).await
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

    fn settings_schema(&self) -> Value {
        settings::schema::<settings::NoSettings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        self.pool.postgres.content.check(given)
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let postgres = &self.pool.postgres;
        let (owner, work, planned) = postgres.plan(context, spec, ISOLATION)?;
        let handout = Handout::of(context, spec).await?;
        let pool = self.pool.clone();
        let made = async move { pool.ensure(&owner, &work, &handout).await };
        let handed = postgres.lanes.run(spec.resource, made).await?;
        let main = postgres.main();
        let outputs = outputs(planned, main, main.database(), guard::SCHEMA, &handed.login);
        Ok(Ensured { outputs, writes: handed.writes(context, spec) })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let postgres = &self.pool.postgres;
        let owner = postgres.owner(spec, ISOLATION)?;
        let mut connection = postgres.main().connection().await?;
        Ok(match owner.look(&mut connection).await? {
            Found::Nothing => {
                Observed::absent_unless(holds(&mut connection, guard::SCHEMA, &owner.tenant).await?)
            }
            Found::Foreign => Observed::Foreign,
            Found::Ours(mut state) => {
                // The tables are everybody's. What fences a tenant there is the policies, not its rights.
                state.shape = self.pool.made(&mut connection).await?;
                let role = owner.right_holder(&state);
                let seen = Seen::of(&mut connection, guard::SCHEMA, role, None).await?;
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
        let Removal { rows, logins: count } = postgres.lanes.run(spec.resource, removed).await?;
        let writes = forget(&*context.rows, spec.tenant.id, &logins.each_ref(), None).await?;
        Ok(Removed { receipt: json!({ "database": spec.name, "rows": rows, "logins": count }), writes })
    }

    async fn probe(&self) -> Result<(), Failure> {
        self.pool.postgres.main().probe().await?;
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

    fn portable(&self) -> Option<&dyn Portable> {
        Some(self)
    }
}
