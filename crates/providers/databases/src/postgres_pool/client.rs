//! The shared tables on the main server: creates and migrates them, manages a tenant's row in the list, role
//! and rows, and begins transactions as a tenant.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tenantry_model::{Failure, TenantId};
use tenantry_postgres::{Pooled, Session, Transaction};

use super::guard::{self, Groups, SCHEMA};
use super::protection::SharedTables;
use super::{ISOLATION, partitions, vetoes};
use crate::content::Ensure;
use crate::postgres::{
    IssuedPassword, LocateRows, ObservedSchema, Owner, PasswordRequest, PerServer, Postgres, RemovalCounts,
    Target, TenantState, Trial, create_objects, delete_all, drop_unblocked, extend_paths, failure, holds,
    inspect_catalogue, lift_timeout, name_taken, privilege_differences, read_catalogue, recorded_shape,
    replica, run, schema_tag, seed, shape, unblocked,
};
use crate::shape::{FORM, Shape};
use crate::tables::{Catalogue, literal};
use tenantry_provider::verbs::Ownership;

/// The shared tables.
pub struct Pool {
    pub postgres: Arc<Postgres>,
    ready: PerServer<Arc<Catalogue>>,
}

impl Pool {
    /// Does not connect.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        Self { postgres, ready: PerServer::default() }
    }

    /// The roles with privileges on the tables.
    pub fn groups(&self) -> Result<Groups, Failure> {
        Groups::new(&self.postgres.config.app_role)
    }

    /// The tables; creates and migrates them when first called. Cancel-safe: the next call continues.
    pub async fn ready(&self) -> Result<Arc<Catalogue>, Failure> {
        self.ready.get_or_init(self.postgres.main(), self.set_up()).await
    }

    async fn set_up(&self) -> Result<Arc<Catalogue>, Failure> {
        let (server, groups) = (self.postgres.main(), self.groups()?);
        server.require(ISOLATION, groups.app.as_str(), 0).await?;
        let extensions = self.postgres.extensions().await?;
        let mut lock = server.lock("pool").await?;
        let tag = schema_tag(&mut lock, SCHEMA).await?;
        guard::ensure_schema(&mut lock, SCHEMA, tag).await?;
        let parts = self.postgres.config.partitions;
        partitions::ensure_schema_of_partitions(&mut lock, parts).await?;
        groups.ensure(&mut lock, server.memberships().await?).await?;
        let migrations = &self.postgres.content.migrations;
        let set = self.postgres.set();
        let shared = SharedTables { groups: &groups, partitions: parts };
        Trial::new(ISOLATION, &set, &extensions, Some(&shared))
            .with_pg_notify(self.postgres.config.pg_notify)
            .run(&mut lock, SCHEMA, migrations)
            .await?;
        let target = Target { protection: Some(&shared), ..Target::of_one(SCHEMA, ISOLATION, &extensions) };
        let migrated = target.migrate(&mut lock, migrations).await?;
        let backend = lock.backend().await.map_err(failure)?;
        let extended = extend_paths(&mut lock, &extensions, SCHEMA);
        if let Err(failure) = unblocked(server, backend, extended).await {
            // Drift names the logins that do not find extensions, and a repair sets their path.
            tracing::warn!(%failure, "not all logins find extensions");
        }
        let recorded = self.recorded_shape(&mut lock).await?;
        // Tables that were changed since they were recorded keep their record.
        let is_recorded = match &recorded {
            Some(made) => shape(&mut lock, SCHEMA, Some(made)).await? == *made,
            None => true,
        };
        let mut is_outdated = recorded.as_ref().is_none_or(|made| made.form() < FORM);
        if !guard::is_protected(&mut lock).await? {
            let before = read_catalogue(&mut lock, SCHEMA, ISOLATION).await?;
            run(&mut lock, groups.protect(&before)).await?;
            // An earlier version has protected them in another way.
            is_outdated = true;
        }
        let anew = migrated.applied || is_recorded && is_outdated;
        let (owner, work) = self.postgres.canary(server, ISOLATION)?;
        let catalogue = read_catalogue(&mut lock, SCHEMA, ISOLATION).await?;
        let mut transaction = lock.begin().await.map_err(failure)?;
        run(&mut transaction, owner.enlist(None, false)).await?;
        // The canary row may have changed since the tables were created.
        seed(&mut transaction, SCHEMA, &extensions.search_path(SCHEMA), &work).await?;
        run(&mut transaction, owner.complete(&work, anew.then_some(&catalogue.shape), true)).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(Arc::new(catalogue))
    }

    /// Creates the tenant's row in the list, role and rows, or completes them.
    pub async fn ensure(
        &self,
        owner: &Owner,
        work: &Ensure,
        request: &PasswordRequest,
    ) -> Result<IssuedPassword, Failure> {
        let (server, name) = (self.postgres.main(), &owner.name);
        self.postgres.admit(server, ISOLATION).await?;
        server.alive().await.map_err(Failure::untouched)?;
        self.ready().await.map_err(Failure::untouched)?;
        let path = self.postgres.extensions().await.map_err(Failure::untouched)?.search_path(SCHEMA);
        let mut lock = server.lock(&owner.lock_name()).await?;
        let state = match owner.inspect(&mut lock).await? {
            Ownership::Foreign => return Err(name_taken()),
            Ownership::Absent => TenantState::default(),
            Ownership::Own(state) => state,
        };
        if state.completed.is_some() && self.differs_from_recorded(&mut lock).await? {
            self.repair_policies().await?;
        }
        let issued = request.issue(owner, &state);
        let mut sql = owner.roles(server, &state, request, self.postgres.config.connection_limit).await?;
        sql.push_str(&server.memberships().await?.grant(&self.groups()?.tenants, name));
        sql.push_str(&owner.search_paths(&state, server.database(), &path));
        sql.push_str(&owner.enlist(issued.new_password(), false));
        let backend = lock.backend().await.map_err(failure)?;
        let made = async {
            let mut transaction = lock.begin().await.map_err(failure)?;
            create_objects(&mut transaction, sql).await?;
            if state.completed.is_none() {
                seed(&mut transaction, SCHEMA, &path, work).await?;
            }
            run(&mut transaction, owner.complete(work, None, issued.is_stored())).await?;
            transaction.commit().await.map_err(failure)
        };
        unblocked(server, backend, made).await?;
        Ok(issued)
    }

    /// The recorded definition of the tables, which the canary's row in the list refers to.
    pub async fn recorded_shape(&self, connection: &mut Session) -> Result<Option<Shape>, Failure> {
        let (canary, _) = self.postgres.canary(self.postgres.main(), ISOLATION)?;
        recorded_shape(connection, ISOLATION, &canary.tenant).await
    }

    /// Whether the tables, their policies or the privileges on them differ from what was recorded.
    async fn differs_from_recorded(&self, connection: &mut Session) -> Result<bool, Failure> {
        let (made, Groups { app, tenants }) = (self.recorded_shape(connection).await?, self.groups()?);
        let state = TenantState { shape: made, ..TenantState::default() };
        let ObservedSchema { shape, rights, .. } =
            ObservedSchema::read(connection, SCHEMA, Some(&tenants), &state).await?;
        let of_app = privilege_differences(connection, SCHEMA, &app, None).await?;
        Ok(!rights.is_empty() || !of_app.is_empty() || state.shape.is_some_and(|made| made != shape))
    }

    /// Writes policies and privileges again.
    async fn repair_policies(&self) -> Result<(), Failure> {
        let mut lock = self.postgres.main().lock("pool").await?;
        let catalogue = read_catalogue(&mut lock, SCHEMA, ISOLATION).await?;
        let mut transaction = lock.begin().await.map_err(failure)?;
        run(&mut transaction, self.groups()?.protect(&catalogue)).await?;
        transaction.commit().await.map_err(failure)
    }

    /// Removes the tenant's rows, roles and row in the list, and counts rows and logins. Deletes rows of a
    /// tenant that is no longer listed, too.
    pub async fn remove(&self, owner: &Owner) -> Result<RemovalCounts, Failure> {
        if !self.postgres.main().is_set_up().await? {
            return Ok(RemovalCounts::default());
        }
        let mut lock = self.postgres.main().lock(&owner.lock_name()).await?;
        let path = self.postgres.main_path(&mut lock, SCHEMA).await?;
        let state = match owner.inspect(&mut lock).await? {
            Ownership::Foreign => return Ok(RemovalCounts::default()),
            Ownership::Absent => TenantState::default(),
            Ownership::Own(state) => state,
        };
        let logins = owner.shut_out(self.postgres.main(), &mut lock, &state).await?;
        let mut transaction = lock.begin().await.map_err(failure)?;
        lift_timeout(&mut transaction).await?;
        let (tenant, backend) = (owner.tenant_id()?, transaction.backend().await.map_err(failure)?);
        let deleted = async {
            // Triggers of the tables name them unqualified, as the migrations do.
            run(&mut transaction, format!("SET LOCAL {path}")).await?;
            delete_rows(&mut transaction, tenant).await
        };
        let rows = unblocked(self.postgres.main(), backend, deleted).await?;
        drop_unblocked(self.postgres.main(), &mut transaction, owner.drop_roles(&state)).await?;
        owner.unlist(&mut transaction).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(RemovalCounts { rows, logins, ..Default::default() })
    }
}

/// Deletes the tenant's rows in every table, and counts them. Triggers are paused if there are some that run on DELETE and
/// the administrator may do that.
async fn delete_rows(transaction: &mut Session, tenant: TenantId) -> Result<Value, Failure> {
    // Another process may have migrated the tables since this one read them.
    let (catalogue, _) = inspect_catalogue(transaction, SCHEMA, ISOLATION).await?;
    let triggers = vetoes::read(transaction, SCHEMA).await?;
    let paused = !triggers.is_empty() && replica::pause(transaction).await?;
    let blocked = |why| vetoes::blocked(&triggers, paused, why);
    let rows = delete_all(transaction, &catalogue, SCHEMA, tenant).await.map_err(blocked)?;
    // A trigger may have kept a row, or written one into a table whose rows were deleted before.
    if !triggers.is_empty() && holds(transaction, SCHEMA, tenant).await? {
        delete_all(transaction, &catalogue, SCHEMA, tenant).await.map_err(blocked)?;
        if holds(transaction, SCHEMA, tenant).await? {
            return Err(blocked(Failure::fatal("removal_blocked", "rows are still there after a DELETE")));
        }
    }
    if paused {
        replica::resume(transaction).await?;
    }
    Ok(rows)
}

#[async_trait]
impl LocateRows for Pool {
    async fn enter(&self, tenant: TenantId) -> Result<(Transaction<Pooled>, Arc<Catalogue>), Failure> {
        let ready = self.ready().await?;
        let become_it = format!(
            "SET LOCAL ROLE {}; SET LOCAL {}; SET LOCAL app.current_tenant_id = {}",
            self.groups()?.app,
            self.postgres.extensions().await?.search_path(SCHEMA),
            literal(&tenant.to_string()),
        );
        Ok((self.postgres.main().begin(become_it).await?, ready))
    }
}
