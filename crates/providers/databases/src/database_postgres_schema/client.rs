//! Tenants' schemas on the server: making one as a whole, removing it, and becoming its tenant for a transaction.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use sqlx::{Connection, PgConnection, Postgres as Driver, Transaction};
use tenantry_model::{Failure, FailureClass, TenantId};
use tokio::sync::OnceCell;

use super::ISOLATION;
use super::spare::SpareSchema;
use crate::content::Ensure;
use crate::database_postgres::{
    Found, Handed, Handout, Home, Made, Name, Owner, Postgres, Removal, Spares, State, Target, baseline,
    bring_up, claimed, count_all, failure, make, name_of, name_taken, no_such_tenant, read_catalogue, rights,
    run, search_path, seed, take_time, unhindered,
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
    /// What a schema is like that was just made: all of them are alike.
    fresh: OnceCell<Shape>,
    canary: Made<Name>,
    places: Cache<TenantId, (Name, Arc<Catalogue>)>,
    pub spares: Spares,
}

impl Schemas {
    /// On these servers.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        let places = Cache::builder().max_capacity(KNOWN).time_to_live(BELIEVED).build();
        let size = postgres.config.warm_schemas;
        let spares = Spares::new(postgres.clone(), ISOLATION, size, SpareSchema(postgres.clone()));
        Self { postgres, fresh: OnceCell::new(), canary: Made::default(), places, spares }
    }

    /// The canary's schema, made anew once in the life of a process.
    pub async fn canary(&self) -> Result<Name, Failure> {
        let made = async {
            let (owner, work) = self.postgres.canary(self.postgres.main(), ISOLATION)?;
            self.make(&owner, &work, &Handout::nobodys()).await?;
            // Its row may be another one than it was when the schema was made.
            let mut transaction = self.postgres.main().begin(String::new()).await?;
            seed(&mut transaction, owner.name.as_str(), &work).await?;
            transaction.commit().await.map_err(failure)?;
            Ok(owner.name)
        };
        self.canary.on(self.postgres.main(), made).await
    }

    /// Makes the tenant's schema and role, or finishes them.
    pub async fn ensure(&self, owner: &Owner, work: &Ensure, handout: &Handout) -> Result<Handed, Failure> {
        self.postgres.main().alive().await?;
        self.canary().await?;
        let made = self.make(owner, work, handout).await;
        // Not before, so that what is made for later is not in the way of what is wanted now.
        self.spares.ask();
        made
    }

    async fn make(&self, owner: &Owner, work: &Ensure, handout: &Handout) -> Result<Handed, Failure> {
        let name = owner.name.as_str();
        let mut turn = self.postgres.main().turn(&owner.word()).await?;
        let found = owner.look(&mut turn).await?;
        let is_new = found == Found::Nothing;
        let state = match found {
            Found::Foreign => return Err(name_taken()),
            Found::Nothing => State::default(),
            Found::Ours(state) => state,
        };
        if is_new && let Some(handed) = claimed(self.claim(&mut turn, owner, work, handout).await)? {
            return Ok(handed);
        }
        let handed = handout.handed(owner, &state);
        let begin = self.begin(owner, handout, &state, &handed).await?;
        let migrations = &self.postgres.content.migrations;
        let whole = if state.thing { None } else { baseline(name, migrations) };
        if let Some(tables) = whole {
            match self.at_once(&mut turn, owner, work, handout, &state, format!("{begin}{tables}")).await {
                // Statement by statement it is seen which one is at fault.
                Err(failure) if matches!(failure.class, FailureClass::Fatal | FailureClass::Invalid) => {
                    tracing::warn!(%failure, "a schema could not be made at once; it is made file by file");
                }
                made => return made.map(|()| handed),
            }
        }
        make(&mut turn, begin).await?;
        let target = Target::of_one(name);
        let made = state.shape.as_ref().filter(|_| state.thing);
        let shape =
            bring_up(&mut turn, target, &self.postgres, self.postgres.main(), ISOLATION, made).await?;
        let mut transaction = turn.begin().await.map_err(failure)?;
        if state.completed.is_none() || !state.thing {
            seed(&mut transaction, name, work).await?;
        }
        run(&mut transaction, end(owner, work, handout, &state, shape.as_ref())).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(handed)
    }

    /// Gives the tenant a schema that is ready, and says what its password is. None: there is none.
    async fn claim(
        &self,
        connection: &mut PgConnection,
        owner: &Owner,
        work: &Ensure,
        handout: &Handout,
    ) -> Result<Option<Handed>, Failure> {
        if !self.spares.are_kept() {
            return Ok(None);
        }
        let (server, name) = (self.postgres.main(), &owner.name);
        let mut transaction = connection.begin().await.map_err(failure)?;
        let claimed = self.spares.claim(&mut transaction, server, owner, handout).await?;
        let Some((spare, handed)) = claimed else { return Ok(None) };
        let finds = owner.finds(&State::default(), server.database(), name.as_str());
        let claim = literal(&owner.claim);
        let rename =
            format!("{finds}ALTER SCHEMA {spare} RENAME TO {name}; COMMENT ON SCHEMA {name} IS {claim};");
        make(&mut transaction, rename).await?;
        seed(&mut transaction, name.as_str(), work).await?;
        run(&mut transaction, owner.complete(work, None, false)).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(Some(handed))
    }

    /// All of it in one transaction; in one round trip too, where no rows are to be written and it is known what tables come
    /// out of it.
    async fn at_once(
        &self,
        connection: &mut PgConnection,
        owner: &Owner,
        work: &Ensure,
        handout: &Handout,
        state: &State,
        begin: String,
    ) -> Result<(), Failure> {
        if let (Some(shape), true) = (self.fresh.get(), work.rows.is_empty()) {
            let end = end(owner, work, handout, state, Some(shape));
            // Without BEGIN and COMMIT, one message is one transaction.
            return run(connection, format!("{begin}{end}")).await;
        }
        let mut transaction = connection.begin().await.map_err(failure)?;
        run(&mut transaction, begin).await?;
        let name = owner.name.as_str();
        let shape = self.fresh.get_or_try_init(|| async {
            read_catalogue(&mut transaction, name).await.map(|catalogue| catalogue.shape)
        });
        let shape = shape.await?;
        seed(&mut transaction, name, work).await?;
        run(&mut transaction, end(owner, work, handout, state, Some(shape))).await?;
        transaction.commit().await.map_err(failure)
    }

    /// The statements that make role and schema, with their marks and their line in the list.
    async fn begin(
        &self,
        owner: &Owner,
        handout: &Handout,
        state: &State,
        handed: &Handed,
    ) -> Result<String, Failure> {
        let (server, name) = (self.postgres.main(), &owner.name);
        let mut sql = owner.roles(server, state, handout, self.postgres.config.connection_limit).await?;
        sql.push_str(&owner.finds(state, server.database(), name.as_str()));
        if !state.thing {
            let claim = literal(&owner.claim);
            sql.push_str(&format!("CREATE SCHEMA {name}; COMMENT ON SCHEMA {name} IS {claim};"));
        }
        sql.push_str(&owner.enlist(handed.made(), !state.thing));
        Ok(sql)
    }

    /// Looks again where a tenant's rows are, and in which tables, when it is next asked for them.
    pub fn forget(&self, tenant: TenantId) {
        self.places.invalidate(&tenant);
    }

    /// Removes schema and roles, if they are the tenant's, and counts rows and logins.
    pub async fn remove(&self, owner: &Owner, tenant: TenantId) -> Result<Removal, Failure> {
        self.forget(tenant);
        let name = &owner.name;
        let mut turn = self.postgres.main().turn(&owner.word()).await?;
        let Found::Ours(state) = owner.look(&mut turn).await? else { return Ok(Removal::default()) };
        let logins = owner.shut_out(&mut turn, &state).await?;
        let mut transaction = turn.begin().await.map_err(failure)?;
        take_time(&mut transaction).await?;
        let catalogue = read_catalogue(&mut transaction, name.as_str()).await.unwrap_or_default();
        let rows = count_all(&mut transaction, &catalogue, name.as_str()).await?;
        let mut sql = String::new();
        if state.thing {
            sql.push_str(&format!("DROP SCHEMA {name} CASCADE;"));
        }
        sql.push_str(&owner.drop_roles(&state));
        unhindered(self.postgres.main(), &mut transaction, sql).await?;
        owner.strike(&mut transaction).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(Removal { rows, logins })
    }

    async fn place(&self, tenant: TenantId) -> Result<(Name, Arc<Catalogue>), Failure> {
        if let Some(place) = self.places.get(&tenant) {
            return Ok(place);
        }
        let canary = tenant == self.postgres.content.canary_row.tenant;
        let canary = if canary { Some(self.canary().await?) } else { None };
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

/// The statements that let the role in and say that all of it is there, in this shape if it is another one now.
fn end(owner: &Owner, work: &Ensure, handout: &Handout, state: &State, shape: Option<&Shape>) -> String {
    let complete = owner.complete(work, shape, handout.handed(owner, state).is_known());
    format!("{}{complete}", rights(owner.name.as_str(), &owner.name, state.fence))
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
