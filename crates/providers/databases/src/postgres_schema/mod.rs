//! Provider `postgres_schema`: a PostgreSQL schema for each tenant. This file implements the provider's
//! verbs. It rejects a schema or role with another owner tag.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;
mod isolation;
mod warm_pool;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, Isolation, TenantId, Write};

use crate::postgres::{
    Name, ObservedSchema, PasswordRequest, Postgres, PostgresRows, RemovalCounts, denies, fence, forget,
    observed, outputs, transfer as rows,
};
use client::Schemas;
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

const ISOLATION: Isolation = Isolation::Schema;

/// The provider.
#[derive(Clone)]
pub struct DatabasePostgresSchema {
    name: Arc<str>,
    schemas: Arc<Schemas>,
}

impl DatabasePostgresSchema {
    /// On these servers. Does not connect.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        Self { name: "postgres_schema".into(), schemas: Arc::new(Schemas::new(postgres)) }
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Returns when the warm-pool fills requested so far are finished, whether they succeeded or not.
    pub async fn refilled(&self) {
        self.schemas.warm_pool.filled().await;
    }

    /// Opens a connection to the spec's rows, outside the pool.
    async fn rows_connection(&self, spec: &Spec) -> Result<rows::RowsConnection, Failure> {
        let server = self.schemas.postgres.main();
        self.schemas.postgres.require_complete(server, spec, ISOLATION).await?;
        let database = Name::new(server.database())?;
        let mut connection = server.connect_to(&database).await?;
        let path = self.schemas.postgres.main_path(&mut connection, &spec.name).await?;
        Ok(rows::RowsConnection {
            connection,
            server: server.clone(),
            database,
            schema: spec.name.clone(),
            path,
            isolation: ISOLATION,
            shared: None,
        })
    }
}

#[async_trait]
impl Data for DatabasePostgresSchema {
    fn scoped(&self, tenant: TenantId) -> Arc<dyn TenantRows> {
        Arc::new(PostgresRows { location: self.schemas.clone(), tenant })
    }

    fn canary(&self) -> Canary {
        self.schemas.postgres.content.canary_row.clone()
    }
}

#[async_trait]
impl Fence for DatabasePostgresSchema {
    async fn fence(&self, order: &Order) -> Result<(), Failure> {
        let postgres = &self.schemas.postgres;
        let owner = postgres.owner_of_order(order, ISOLATION)?;
        self.schemas.forget(order.tenant);
        fence(postgres.main(), &owner, order).await
    }

    async fn denies(&self, order: &Order) -> Result<Option<SuspensionMode>, Failure> {
        let postgres = &self.schemas.postgres;
        denies(postgres.main(), &postgres.owner_of_order(order, ISOLATION)?).await
    }
}

#[async_trait]
impl Rotate for DatabasePostgresSchema {
    async fn rotate(&self, context: &Context, spec: &Spec, former: Former) -> Result<Rotated, Failure> {
        let postgres = &self.schemas.postgres;
        let main = postgres.main();
        let path = postgres.main_path(&mut *main.connection().await?, &spec.name).await?;
        postgres.rotate(main, (context, spec), ISOLATION, Some((main.database(), &path)), former).await
    }

    async fn retire(&self, rows: &dyn Rows, retirement: &Retirement) -> Result<Vec<Write>, Failure> {
        let postgres = &self.schemas.postgres;
        let server = postgres.main();
        postgres.retire(server, rows, retirement, ISOLATION).await
    }
}

#[async_trait]
impl Transfer for DatabasePostgresSchema {
    fn form(&self) -> &'static str {
        rows::FORM
    }

    async fn export(&self, _: &Context, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
        rows::export(self.rows_connection(spec).await?, spec, sink).await
    }

    async fn load(&self, _: &Context, spec: &Spec, source: &mut dyn Source) -> Result<Vec<Write>, Failure> {
        let _lock = self.schemas.postgres.locks.lock(spec.resource).await;
        rows::load(self.rows_connection(spec).await?, spec, source).await
    }
}

#[async_trait]
impl Provider for DatabasePostgresSchema {
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
        self.schemas.warm_pool.start();
        Ok(())
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<settings::NoSettings>()
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        crate::postgres::Name::new(name).map(drop).map_err(|failure| failure.message)
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        self.schemas.postgres.content.check(given)
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let postgres = &self.schemas.postgres;
        let (owner, work, planned) = postgres.plan(context, spec, ISOLATION)?;
        let request = PasswordRequest::for_spec(context, spec).await?;
        let schemas = self.schemas.clone();
        let made = async move { schemas.ensure(&owner, &work, &request).await };
        let made = postgres.locks.run(spec.resource, made).await;
        // The tables may have changed.
        self.schemas.forget(spec.tenant.id);
        let (issued, main) = (made?, postgres.main());
        let outputs = outputs(planned, main, main.database(), &spec.name, &issued.login);
        Ok(Ensured { outputs, writes: issued.writes(context, spec) })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let postgres = &self.schemas.postgres;
        let owner = postgres.owner(spec, ISOLATION)?;
        if !postgres.main().is_set_up().await? {
            return Ok(Observed::Absent);
        }
        let mut connection = postgres.main().connection().await?;
        Ok(match owner.inspect(&mut connection).await? {
            Ownership::Absent => Observed::Absent,
            Ownership::Foreign => Observed::Foreign,
            Ownership::Own(state) => {
                let seen = match state.thing {
                    true => {
                        let role = owner.right_holder(&state);
                        let mut seen =
                            ObservedSchema::read(&mut connection, &spec.name, role, &state).await?;
                        seen.rights.extend(postgres.paths_of(&mut connection, &owner, &state).await?);
                        Some(seen)
                    }
                    false => None,
                };
                observed(&postgres.content, &owner, &state, seen)
            }
        })
    }

    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let postgres = &self.schemas.postgres;
        let owner = postgres.owner(spec, ISOLATION)?;
        let (schemas, tenant) = (self.schemas.clone(), spec.tenant.id);
        let logins = [owner.name.clone(), owner.second.clone()];
        let removed = async move { schemas.remove(&owner, tenant).await };
        let RemovalCounts { rows, logins: count, .. } = postgres.locks.run(spec.resource, removed).await?;
        let writes = forget(&*context.rows, tenant, &logins.each_ref(), None).await?;
        Ok(Removed { receipt: json!({ "schema": spec.name, "rows": rows, "logins": count }), writes })
    }

    async fn probe(&self) -> Result<(), Failure> {
        let postgres = &self.schemas.postgres;
        postgres.probe(postgres.main(), ISOLATION).await?;
        self.schemas.canary().await.map(drop)
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
