//! The shared tables on the server: opening them, a tenant's line, role and rows, and becoming a tenant for a transaction.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Connection, PgConnection, Postgres as Driver, Transaction};
use tenantry_model::{Failure, TenantId};

use super::guard::{self, Groups, SCHEMA};
use super::{ISOLATION, partitions};
use crate::content::Ensure;
use crate::database_postgres::{
    Found, Handed, Handout, Home, Made, Owner, Postgres, Removal, Seen, State, Target, delete_all, failure,
    lost_rights, make, mark_of_schema, name_taken, read_catalogue, recorded, run, search_path, seed,
    take_time,
};
use crate::shape::Shape;
use crate::tables::{Catalogue, literal};

/// The pool.
pub struct Pool {
    pub postgres: Arc<Postgres>,
    ready: Made<Arc<Catalogue>>,
}

impl Pool {
    /// On the main server.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        Self { postgres, ready: Made::default() }
    }

    /// The roles that reach the tables.
    pub fn groups(&self) -> Result<Groups, Failure> {
        Groups::new(&self.postgres.config.app_role)
    }

    /// What tables there are; makes and migrates them the first time. Safe to drop: the next call goes on.
    pub async fn ready(&self) -> Result<Arc<Catalogue>, Failure> {
        self.ready.on(self.postgres.main(), self.stand()).await
    }

    async fn stand(&self) -> Result<Arc<Catalogue>, Failure> {
        let (server, groups) = (self.postgres.main(), self.groups()?);
        let mut turn = server.turn("pool").await?;
        let mark = mark_of_schema(&mut turn, SCHEMA).await?;
        guard::stand_schema(&mut turn, SCHEMA, mark).await?;
        let parts = self.postgres.config.partitions;
        partitions::stand(&mut turn, parts).await?;
        groups.stand(&mut turn, server.is_superuser().await?).await?;
        let protect = |catalogue: &Catalogue| groups.protect(catalogue);
        let prepare = |sql: &str| partitions::in_parts(sql, parts);
        let target = Target { prepare: &prepare, protect: &protect, ..Target::of_one(SCHEMA) };
        let migrated = target.migrate(&mut turn, &self.postgres.content.migrations).await?;
        if !guard::is_protected(&mut turn).await? {
            let catalogue = read_catalogue(&mut turn, SCHEMA).await?;
            run(&mut turn, groups.protect(&catalogue)).await?;
        }
        let (owner, work) = self.postgres.canary(server, ISOLATION)?;
        let catalogue = read_catalogue(&mut turn, SCHEMA).await?;
        let anew = migrated.applied || self.made(&mut turn).await?.is_none();
        let mut transaction = turn.begin().await.map_err(failure)?;
        run(&mut transaction, owner.enlist(None, false)).await?;
        // Its row may be another one than it was when the tables were made.
        seed(&mut transaction, SCHEMA, &work).await?;
        run(&mut transaction, owner.complete(&work, anew.then_some(&catalogue.shape), true)).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(Arc::new(catalogue))
    }

    /// Makes the tenant's line, role and rows, or finishes them.
    pub async fn ensure(&self, owner: &Owner, work: &Ensure, handout: &Handout) -> Result<Handed, Failure> {
        let (server, name) = (self.postgres.main(), &owner.name);
        server.alive().await?;
        self.ready().await?;
        let mut turn = server.turn(&owner.word()).await?;
        let state = match owner.look(&mut turn).await? {
            Found::Foreign => return Err(name_taken()),
            Found::Nothing => State::default(),
            Found::Ours(state) => state,
        };
        if state.completed.is_some() && self.is_damaged(&mut turn).await? {
            self.mend().await?;
        }
        let handed = handout.handed(owner, &state);
        let mut sql = owner.roles(server, &state, handout, self.postgres.config.connection_limit).await?;
        sql.push_str(&format!("GRANT {} TO {name};", self.groups()?.tenants));
        sql.push_str(&owner.finds(&state, server.database(), SCHEMA));
        sql.push_str(&owner.enlist(handed.made(), false));
        let mut transaction = turn.begin().await.map_err(failure)?;
        make(&mut transaction, sql).await?;
        if state.completed.is_none() {
            seed(&mut transaction, SCHEMA, work).await?;
        }
        run(&mut transaction, owner.complete(work, None, handed.is_known())).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(handed)
    }

    /// The shape of the tables as they were made, or migrated: recorded with the canary's line.
    pub async fn made(&self, connection: &mut PgConnection) -> Result<Option<Shape>, Failure> {
        let (canary, _) = self.postgres.canary(self.postgres.main(), ISOLATION)?;
        recorded(connection, ISOLATION, &canary.tenant).await
    }

    /// Whether the tables, their policies, or the tenants' rights in them are not as they were made.
    async fn is_damaged(&self, connection: &mut PgConnection) -> Result<bool, Failure> {
        let (made, Groups { app, tenants }) = (self.made(connection).await?, self.groups()?);
        let Seen { shape, rights, .. } = Seen::of(connection, SCHEMA, Some(&tenants), None).await?;
        let of_app = lost_rights(connection, SCHEMA, &app, None).await?;
        Ok(!rights.is_empty() || !of_app.is_empty() || made.is_some_and(|made| made != shape))
    }

    /// Writes policies and rights again.
    async fn mend(&self) -> Result<(), Failure> {
        let mut turn = self.postgres.main().turn("pool").await?;
        let catalogue = read_catalogue(&mut turn, SCHEMA).await?;
        let mut transaction = turn.begin().await.map_err(failure)?;
        run(&mut transaction, self.groups()?.protect(&catalogue)).await?;
        transaction.commit().await.map_err(failure)
    }

    /// Removes what is the tenant's, and counts rows and logins; also those of a tenant that is not listed any more.
    pub async fn remove(&self, owner: &Owner) -> Result<Removal, Failure> {
        let mut turn = self.postgres.main().turn(&owner.word()).await?;
        let state = match owner.look(&mut turn).await? {
            Found::Foreign => return Ok(Removal::default()),
            Found::Nothing => State::default(),
            Found::Ours(state) => state,
        };
        let logins = owner.shut_out(&mut turn, &state).await?;
        let mut transaction = turn.begin().await.map_err(failure)?;
        take_time(&mut transaction).await?;
        // The tables' own triggers name them as the files do.
        run(&mut transaction, format!("SET LOCAL {}", search_path(SCHEMA))).await?;
        // Another process may have migrated the tables since this one opened them.
        let catalogue = read_catalogue(&mut transaction, SCHEMA).await?;
        let rows = delete_all(&mut transaction, &catalogue, SCHEMA, &owner.tenant).await?;
        run(&mut transaction, owner.drop_roles(&state)).await?;
        owner.strike(&mut transaction).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(Removal { rows, logins })
    }
}

#[async_trait]
impl Home for Pool {
    async fn enter(
        &self,
        tenant: TenantId,
    ) -> Result<(Transaction<'static, Driver>, Arc<Catalogue>), Failure> {
        let ready = self.ready().await?;
        let become_it = format!(
            "SET LOCAL ROLE {}; SET LOCAL {}; SET LOCAL app.current_tenant_id = {}",
            self.groups()?.app,
            search_path(SCHEMA),
            literal(&tenant.to_string()),
        );
        Ok((self.postgres.main().begin(become_it).await?, ready))
    }
}
