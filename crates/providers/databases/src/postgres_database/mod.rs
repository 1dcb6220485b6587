//! Provider `postgres_database`: a PostgreSQL database for each tenant. This file implements the provider's
//! verbs. It rejects a database or role with another owner tag, and tables that shared use would not keep
//! apart.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;
mod dropping;
mod isolation;
mod template;
mod warm_pool;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use serde_json::{Value, json};
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, Isolation, TenantId, Write};

use crate::postgres::{
    Name, ObservedSchema, Owner, PasswordRequest, Postgres, PostgresRows, RemovalCounts, Server, denies,
    fence, forget, observed, outputs, transfer as rows,
};
use client::Databases;
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

const ISOLATION: Isolation = Isolation::Database;

/// The provider.
#[derive(Clone)]
pub struct DatabasePostgresDatabase {
    name: Arc<str>,
    databases: Arc<Databases>,
}

impl DatabasePostgresDatabase {
    /// On these servers. Does not connect.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        Self { name: "postgres_database".into(), databases: Arc::new(Databases::new(postgres)) }
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Returns when the warm-pool fills requested so far are finished, whether they succeeded or not.
    pub async fn refilled(&self) {
        self.databases.warm_pool.filled().await;
    }

    /// Opens a connection to the spec's database, outside the pool.
    async fn rows_connection(&self, spec: &Spec) -> Result<rows::RowsConnection, Failure> {
        let server = self.databases.postgres.of_region(&spec.tenant.region);
        let database = Name::new(&spec.name)?;
        let connection = async {
            self.databases.postgres.require_complete(server, spec, ISOLATION).await?;
            server.connect_to(&database).await
        };
        let connection = connection.await.map_err(|failure| server.named(failure))?;
        Ok(rows::RowsConnection {
            connection,
            server: server.clone(),
            database,
            schema: client::SCHEMA.to_owned(),
            path: self.databases.extensions.search_path(client::SCHEMA),
            isolation: ISOLATION,
            shared: None,
        })
    }

    async fn look(&self, server: &Server, owner: &Owner, draft: &Name) -> Result<Observed, Failure> {
        if !server.is_set_up().await? {
            return Ok(Observed::Absent);
        }
        let mut connection = server.connection().await?;
        let found = owner.inspect(&mut connection).await?;
        Ok(match found {
            Ownership::Absent => Observed::absent_unless(client::is_there(&mut connection, draft).await?),
            Ownership::Foreign => Observed::Foreign,
            Ownership::Own(state) => {
                let seen = match state.thing {
                    true => {
                        let mut inside = match server.connect_to(&owner.name).await {
                            Err(_) if client::is_closed(&mut connection, &owner.name).await? => {
                                return Ok(Observed::absent_unless(true));
                            }
                            inside => inside?,
                        };
                        let role = owner.right_holder(&state);
                        let mut seen =
                            ObservedSchema::read(&mut inside, client::SCHEMA, role, &state).await?;
                        inside.close().await;
                        let (database, logins) = (owner.name.as_str(), owner.existing(&state));
                        let lost = self.databases.extensions.not_found_by(&mut connection, database, logins);
                        seen.rights.extend(lost.await?);
                        Some(seen)
                    }
                    false => None,
                };
                observed(&self.databases.postgres.content, owner, &state, seen)
            }
        })
    }

    /// Checks that tenants can be created on this server.
    async fn serves(&self, server: &Server) -> Result<(), Failure> {
        self.databases.postgres.probe(server, ISOLATION).await?;
        self.databases.canary(server).await.map(drop)
    }
}

#[async_trait]
impl Data for DatabasePostgresDatabase {
    fn scoped(&self, tenant: TenantId) -> Arc<dyn TenantRows> {
        Arc::new(PostgresRows { location: self.databases.clone(), tenant })
    }

    fn canary(&self) -> Canary {
        self.databases.postgres.content.canary_row.clone()
    }
}

#[async_trait]
impl Fence for DatabasePostgresDatabase {
    async fn fence(&self, order: &Order) -> Result<(), Failure> {
        let postgres = &self.databases.postgres;
        let owner = postgres.owner_of_order(order, ISOLATION)?;
        self.databases.forget(order.tenant);
        let server = postgres.of_region(&order.region);
        fence(server, &owner, order).await.map_err(|failure| server.named(failure))
    }

    async fn denies(&self, order: &Order) -> Result<Option<SuspensionMode>, Failure> {
        let postgres = &self.databases.postgres;
        let server = postgres.of_region(&order.region);
        let denied = denies(server, &postgres.owner_of_order(order, ISOLATION)?).await;
        denied.map_err(|failure| server.named(failure))
    }
}

#[async_trait]
impl Rotate for DatabasePostgresDatabase {
    async fn rotate(&self, context: &Context, spec: &Spec, former: Former) -> Result<Rotated, Failure> {
        let postgres = &self.databases.postgres;
        let server = postgres.of_region(&spec.tenant.region);
        let extensions = &self.databases.extensions;
        let path = extensions.search_path(client::SCHEMA);
        let path = (!extensions.is_empty()).then_some((&*spec.name, &*path));
        postgres.rotate(server, (context, spec), ISOLATION, path, former).await
    }

    async fn retire(&self, rows: &dyn Rows, retirement: &Retirement) -> Result<Vec<Write>, Failure> {
        let postgres = &self.databases.postgres;
        let server = postgres.of_region(&retirement.region);
        postgres.retire(server, rows, retirement, ISOLATION).await
    }
}

#[async_trait]
impl Transfer for DatabasePostgresDatabase {
    fn form(&self) -> &'static str {
        rows::FORM
    }

    async fn export(&self, _: &Context, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
        rows::export(self.rows_connection(spec).await?, spec, sink).await
    }

    async fn load(&self, _: &Context, spec: &Spec, source: &mut dyn Source) -> Result<Vec<Write>, Failure> {
        let _lock = self.databases.postgres.locks.lock(spec.resource).await;
        rows::load(self.rows_connection(spec).await?, spec, source).await
    }
}

#[async_trait]
impl Provider for DatabasePostgresDatabase {
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
        self.databases.warm_pool.start();
        Ok(())
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<settings::NoSettings>()
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        crate::postgres::Name::new(name).map(drop).map_err(|failure| failure.message)
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        self.databases.postgres.content.check(given)
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let postgres = &self.databases.postgres;
        let (owner, work, planned) = postgres.plan(context, spec, ISOLATION)?;
        let server = postgres.of_region(&spec.tenant.region).clone();
        let (request, draft) =
            (PasswordRequest::for_spec(context, spec).await?, client::draft(spec.resource)?);
        let databases = self.databases.clone();
        let on = server.clone();
        let made = async move {
            let made = databases.ensure(&on, &owner, &work, &request, &draft).await;
            made.map_err(|failure| on.named(failure))
        };
        let made = postgres.locks.run(spec.resource, made).await;
        // The tables may have changed.
        self.databases.forget(spec.tenant.id);
        let issued = made?;
        let outputs = outputs(planned, &server, &spec.name, client::SCHEMA, &issued.login);
        Ok(Ensured { outputs, writes: issued.writes(context, spec) })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let postgres = &self.databases.postgres;
        let owner = postgres.owner(spec, ISOLATION)?;
        let server = postgres.of_region(&spec.tenant.region);
        let looked = self.look(server, &owner, &client::draft(spec.resource)?).await;
        looked.map_err(|failure| server.named(failure))
    }

    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let postgres = &self.databases.postgres;
        let owner = postgres.owner(spec, ISOLATION)?;
        let (databases, tenant) = (self.databases.clone(), spec.tenant.id);
        let (server, draft) =
            (postgres.of_region(&spec.tenant.region).clone(), client::draft(spec.resource)?);
        let logins = [owner.name.clone(), owner.second.clone()];
        let removed = async move {
            let removed = databases.remove(&server, &owner, tenant, &draft).await;
            removed.map_err(|failure| server.named(failure))
        };
        let RemovalCounts { rows, logins: count, slots_left } =
            postgres.locks.run(spec.resource, removed).await?;
        let writes = forget(&*context.rows, tenant, &logins.each_ref(), None).await?;
        let mut receipt = json!({ "database": spec.name, "rows": rows, "logins": count });
        if !slots_left.is_empty() {
            receipt["replication_slots_left"] = json!(slots_left.len());
        }
        Ok(Removed { receipt, writes })
    }

    async fn probe(&self) -> Result<(), Failure> {
        let each =
            self.databases.postgres.servers().map(|server| async move {
                self.serves(server).await.map_err(|failure| server.named(failure))
            });
        let mut out = join_all(each).await.into_iter().filter_map(Result::err);
        let Some(mut first) = out.next() else { return Ok(()) };
        for other in out {
            first.message = format!("{}; {}", first.message, other.message);
        }
        Err(first)
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
