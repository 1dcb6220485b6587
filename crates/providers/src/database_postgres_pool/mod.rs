//! Tables on PostgreSQL that tenants share. This file is the provider's verbs.
//! Refuses a tenant or role that is somebody else's, and tables, views and functions that would show one tenant's rows to another.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;
mod guard;
mod isolation;
mod tables;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_model::suspension::Grade;
use tenantry_model::{Failure, Isolation, TenantId, Write};

use crate::data::{Canary, Data, TenantRows};
use crate::database_postgres::{
    Found, Handout, Name, Postgres, Scoped, Seen, denies, fence, forget, holds, observed, outputs,
    portable as rows,
};
use crate::fence::{Fence, Order};
use crate::isolation::IsolationCheck;
use crate::portable::{Content, Portable, Sink, Source};
use crate::settings;
use crate::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};
use client::Pool;
pub use config::{Config, Settings};

const ISOLATION: Isolation = Isolation::Pool;

/// The provider.
#[derive(Clone)]
pub struct DatabasePostgresPool {
    pool: Arc<Pool>,
}

impl DatabasePostgresPool {
    /// Over these servers. Connects to nothing.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        Self { pool: Arc::new(Pool::new(postgres)) }
    }

    /// A connection of its own to the database with the spec's rows.
    async fn inside(&self, spec: &Spec) -> Result<rows::Inside, Failure> {
        self.pool.ready().await?;
        let server = self.pool.postgres.main();
        self.pool.postgres.must_stand(server, spec, ISOLATION).await?;
        let connection = server.connect_to(&Name::new(server.database())?).await?;
        Ok(rows::Inside { connection, schema: guard::SCHEMA.to_owned(), shared: true })
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
    fn name(&self) -> &'static str {
        "postgres_pool"
    }

    fn kind(&self) -> Kind {
        Kind::Database
    }

    fn isolates(&self, isolation: Isolation) -> bool {
        isolation == ISOLATION
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<Settings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        self.pool.postgres.content.check(given)
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let postgres = &self.pool.postgres;
        let (owner, work, planned) = postgres.plan(context, spec, ISOLATION)?;
        let outputs =
            outputs(planned, postgres.main(), postgres.main().database(), guard::SCHEMA, &owner.name);
        let handout = Handout::of(context, spec).await?;
        let pool = self.pool.clone();
        let made = async move { pool.ensure(&owner, &work, &handout).await };
        let secret = postgres.lanes.run(spec.resource, made).await?;
        Ok(Ensured { outputs, writes: secret.writes(context, spec) })
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
                let role = state.role.map(|_| &owner.name);
                let seen = Seen::of(&mut connection, guard::SCHEMA, role, None).await?;
                observed(&postgres.content, &state, Some(seen))
            }
        })
    }

    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let postgres = &self.pool.postgres;
        let owner = postgres.owner(spec, ISOLATION)?;
        let pool = self.pool.clone();
        let removed = async move { pool.remove(&owner).await };
        let rows = postgres.lanes.run(spec.resource, removed).await?;
        let writes = forget(context, spec).await?;
        Ok(Removed { receipt: json!({ "database": spec.name, "rows": rows }), writes })
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

    fn isolation(&self) -> Option<&dyn IsolationCheck> {
        Some(self)
    }

    fn portable(&self) -> Option<&dyn Portable> {
        Some(self)
    }
}
