//! Tenants' schemas on the server: making one as a whole, removing it, and becoming its tenant for a transaction.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use serde_json::{Map, Value};
use sqlx::{Connection, PgConnection, Postgres as Driver, Transaction};
use tenantry_model::{Failure, FailureClass, TenantId};
use tokio::sync::OnceCell;

use super::ISOLATION;
use crate::content::Ensure;
use crate::database_postgres::{
    Found, Handout, Home, Name, Owner, Postgres, Secret, State, Target, baseline, bring_up, count_all,
    failure, make, name_of, name_taken, no_such_tenant, read_catalogue, rights, run, search_path, seed,
    shut_out, take_time,
};
use crate::shape::Shape;
use crate::tables::{Catalogue, literal};

/// How long it is believed where a tenant's rows are, and which tables it has.
const BELIEVED: Duration = Duration::from_secs(60);
/// Tenants of whom that is known.
const KNOWN: u64 = 1_000;

/// The schemas.
pub struct Schemas {
    pub postgres: Arc<Postgres>,
    /// What a schema is like that was just made.
    fresh: OnceCell<Arc<Catalogue>>,
    canary: OnceCell<Name>,
    places: Cache<TenantId, (Name, Arc<Catalogue>)>,
}

impl Schemas {
    /// On these servers.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        let places = Cache::builder().max_capacity(KNOWN).time_to_live(BELIEVED).build();
        Self { postgres, fresh: OnceCell::new(), canary: OnceCell::new(), places }
    }

    /// The canary's schema, made anew once in the life of a process.
    pub async fn canary(&self) -> Result<&Name, Failure> {
        let made = self.canary.get_or_try_init(|| async {
            let (owner, work) = self.postgres.canary(self.postgres.main(), ISOLATION)?;
            self.make(&owner, &work, &Handout::nobodys()).await?;
            // Its row may be another one than it was when the schema was made.
            let mut transaction = self.postgres.main().begin(String::new()).await?;
            seed(&mut transaction, owner.name.as_str(), &work).await?;
            transaction.commit().await.map_err(failure)?;
            Ok(owner.name)
        });
        made.await
    }

    /// Makes the tenant's schema and role, or finishes them.
    pub async fn ensure(&self, owner: &Owner, work: &Ensure, handout: &Handout) -> Result<Secret, Failure> {
        self.canary().await?;
        self.make(owner, work, handout).await
    }

    async fn make(&self, owner: &Owner, work: &Ensure, handout: &Handout) -> Result<Secret, Failure> {
        let name = owner.name.as_str();
        let mut turn = self.postgres.main().turn(&format!("schema {name}")).await?;
        let state = match owner.look(&mut turn).await? {
            Found::Foreign => return Err(name_taken()),
            Found::Nothing => State::default(),
            Found::Ours(state) => state,
        };
        let migrations = &self.postgres.content.migrations;
        let whole = if state.thing { None } else { baseline(name, migrations) };
        if let Some(tables) = whole {
            match self.at_once(&mut turn, owner, work, handout, &state, tables).await {
                // File by file it is seen which one is at fault.
                Err(failure) if matches!(failure.class, FailureClass::Fatal | FailureClass::Invalid) => {}
                made => return made.map(|()| handout.secret(&state)),
            }
        }
        let mut transaction = turn.begin().await.map_err(failure)?;
        self.begin(&mut transaction, owner, handout, &state, "").await?;
        transaction.commit().await.map_err(failure)?;
        let target = Target { schema: name, protect: &|_| String::new() };
        let made = state.shape.as_ref().filter(|_| state.thing);
        let shape = bring_up(&mut turn, target, &self.postgres, ISOLATION, made).await?;
        let mut transaction = turn.begin().await.map_err(failure)?;
        self.finish(&mut transaction, owner, work, handout, &state, shape.as_ref()).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(handout.secret(&state))
    }

    /// All of it in one transaction.
    async fn at_once(
        &self,
        connection: &mut PgConnection,
        owner: &Owner,
        work: &Ensure,
        handout: &Handout,
        state: &State,
        tables: String,
    ) -> Result<(), Failure> {
        let mut transaction = connection.begin().await.map_err(failure)?;
        self.begin(&mut transaction, owner, handout, state, &tables).await?;
        let catalogue = self.fresh.get_or_try_init(|| async {
            read_catalogue(&mut transaction, owner.name.as_str()).await.map(Arc::new)
        });
        let shape = &catalogue.await?.shape;
        self.finish(&mut transaction, owner, work, handout, state, Some(shape)).await?;
        transaction.commit().await.map_err(failure)
    }

    /// Role and schema with their marks, and whatever else is to come in the same round trip.
    async fn begin(
        &self,
        transaction: &mut PgConnection,
        owner: &Owner,
        handout: &Handout,
        state: &State,
        more: &str,
    ) -> Result<(), Failure> {
        let (server, name) = (self.postgres.main(), &owner.name);
        let mut sql = owner.role(server, state, handout, self.postgres.config.connection_limit).await?;
        sql.push_str(&owner.finds(server.database(), name.as_str()));
        if !state.thing {
            let claim = literal(&owner.claim);
            sql.push_str(&format!("CREATE SCHEMA {name}; COMMENT ON SCHEMA {name} IS {claim};"));
        }
        sql.push_str(more);
        make(transaction, sql).await?;
        let sealed = match handout.secret(state) {
            Secret::New(sealed) => Some(sealed),
            Secret::Waiting(_) | Secret::Settled => None,
        };
        owner.enlist(transaction, sealed.as_deref()).await
    }

    async fn finish(
        &self,
        transaction: &mut PgConnection,
        owner: &Owner,
        work: &Ensure,
        handout: &Handout,
        state: &State,
        shape: Option<&Shape>,
    ) -> Result<(), Failure> {
        let name = owner.name.as_str();
        if state.completed.is_none() || !state.thing {
            seed(transaction, name, work).await?;
        }
        run(transaction, rights(name, &owner.name, state.fence)).await?;
        let settled = handout.known() && handout.needed(state).is_none();
        owner.complete(transaction, work, shape, settled).await
    }

    /// Looks again where a tenant's rows are, and in which tables, when it is next asked for them.
    pub fn forget(&self, tenant: TenantId) {
        self.places.invalidate(&tenant);
    }

    /// Removes schema and role, if they are the tenant's, and counts the rows.
    pub async fn remove(&self, owner: &Owner, tenant: TenantId) -> Result<Value, Failure> {
        self.forget(tenant);
        let name = &owner.name;
        let mut turn = self.postgres.main().turn(&format!("schema {}", name.as_str())).await?;
        let Found::Ours(state) = owner.look(&mut turn).await? else { return Ok(Value::Object(Map::new())) };
        if state.role.is_some() {
            shut_out(&mut turn, name).await?;
        }
        let mut transaction = turn.begin().await.map_err(failure)?;
        take_time(&mut transaction).await?;
        let catalogue = read_catalogue(&mut transaction, name.as_str()).await.unwrap_or_default();
        let rows = count_all(&mut transaction, &catalogue, name.as_str()).await?;
        let mut sql = String::new();
        if state.thing {
            sql.push_str(&format!("DROP SCHEMA {name} CASCADE;"));
        }
        if state.role.is_some() {
            sql.push_str(&format!("DROP ROLE {name};"));
        }
        run(&mut transaction, sql).await?;
        owner.strike(&mut transaction).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(rows)
    }

    async fn place(&self, tenant: TenantId) -> Result<(Name, Arc<Catalogue>), Failure> {
        if let Some(place) = self.places.get(&tenant) {
            return Ok(place);
        }
        let canary = tenant == self.postgres.content.canary_row.tenant;
        let canary = if canary { Some(self.canary().await?.clone()) } else { None };
        let mut connection = self.postgres.main().connection().await?;
        let name = match canary {
            Some(name) => name,
            None => name_of(&mut connection, ISOLATION, tenant).await?.ok_or_else(no_such_tenant)?,
        };
        let catalogue = Arc::new(read_catalogue(&mut connection, name.as_str()).await?);
        self.places.insert(tenant, (name.clone(), catalogue.clone()));
        Ok((name, catalogue))
    }
}

#[async_trait]
impl Home for Schemas {
    async fn enter(
        &self,
        tenant: TenantId,
    ) -> Result<(Transaction<'static, Driver>, Arc<Catalogue>), Failure> {
        let (name, catalogue) = self.place(tenant).await?;
        let become_it = format!("SET LOCAL ROLE {name}; SET LOCAL {}", search_path(name.as_str()));
        match self.postgres.main().begin(become_it).await {
            Ok(transaction) => Ok((transaction, catalogue)),
            Err(failure) if failure.class == FailureClass::Invalid => {
                self.places.invalidate(&tenant);
                Err(no_such_tenant())
            }
            Err(failure) => Err(failure),
        }
    }
}
