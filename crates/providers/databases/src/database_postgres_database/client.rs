//! Tenants' databases on their servers: making one aside, which is renamed in the transaction that says whose it is;
//! removing it; and becoming its tenant for a transaction.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use moka::sync::Cache;
use serde_json::{Map, Value};
use sqlx::postgres::PgPool;
use sqlx::{Connection, PgConnection, Postgres as Driver, Transaction};
use tenantry_model::id::ResourceId;
use tenantry_model::{Failure, FailureClass, TenantId};
use tokio::join;

use super::spare::SpareDatabase;
use super::{ISOLATION, template};
use crate::content::Ensure;
use crate::database_postgres::{
    Found, Handed, Handout, Home, Made, Name, Owner, Postgres, Removal, Server, Spares, State, Target, begin,
    bring_up, claimed, close, count_all, failure, make, meanwhile, name_of, name_taken, no_such_tenant,
    read_catalogue, rights, run, search_path, seed, take_time,
};
use crate::shape::Shape;
use crate::tables::{Catalogue, literal};

/// Where the tables are in a tenant's database.
pub const SCHEMA: &str = "public";
/// Connections to one tenant's database.
const CONNECTIONS: u32 = 2;
/// Has a commit not wait for the disk: the last one of a creation waits, unless the server's own setting is that none does, and
/// what it follows is on the disk before it is.
const LATER: &str = "SET LOCAL synchronous_commit = off;";
/// How long it is believed where a tenant's rows are, and which tables it has.
const BELIEVED: Duration = Duration::from_secs(60);

/// A tenant's database that we are connected to, or can be.
#[derive(Clone)]
pub struct Opened {
    server: Arc<Server>,
    role: Name,
    pool: PgPool,
    catalogue: Arc<Catalogue>,
}

/// The template on one server.
struct Template {
    name: Name,
    /// What a copy of it is made of; servers of other releases describe it in other words.
    fresh: OnceLock<Shape>,
}

/// The databases.
pub struct Databases {
    pub postgres: Arc<Postgres>,
    template: Made<Arc<Template>>,
    canary: Made<Name>,
    open: Cache<TenantId, Opened>,
    pub spares: Spares,
}

impl Databases {
    /// On these servers.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        let open = Cache::builder().max_capacity(postgres.config.open_databases).time_to_live(BELIEVED);
        let size = postgres.config.warm_databases;
        let spares = Spares::new(postgres.clone(), ISOLATION, size, SpareDatabase(postgres.clone()));
        Self { postgres, template: Made::default(), canary: Made::default(), open: open.build(), spares }
    }

    /// The canary's database on a server, made anew once in the life of a process.
    pub async fn canary(&self, server: &Server) -> Result<Name, Failure> {
        let made = async {
            let (owner, work) = self.postgres.canary(server, ISOLATION)?;
            let draft = Name::new(&owner.name.as_str().replace("canary", "draft"))?;
            self.make(server, &owner, &work, &Handout::nobodys(), &draft).await?;
            // Its row may be another one than it was when the database was made.
            seed_in(server, &owner.name, &work).await?;
            Ok(owner.name)
        };
        self.canary.on(server, made).await
    }

    /// Makes the tenant's database and role, or finishes them.
    pub async fn ensure(
        &self,
        server: &Server,
        owner: &Owner,
        work: &Ensure,
        handout: &Handout,
        draft: &Name,
    ) -> Result<Handed, Failure> {
        server.alive().await?;
        self.canary(server).await?;
        let made = self.make(server, owner, work, handout, draft).await;
        // Not before, so that what is made for later is not in the way of what is wanted now.
        self.spares.ask();
        made
    }

    async fn make(
        &self,
        server: &Server,
        owner: &Owner,
        work: &Ensure,
        handout: &Handout,
        draft: &Name,
    ) -> Result<Handed, Failure> {
        let name = &owner.name;
        let template = self.template(server).await?;
        let mut turn = server.turn(&owner.word()).await?;
        let found = owner.look(&mut turn).await?;
        let is_new = found == Found::Nothing;
        let state = match found {
            Found::Foreign => return Err(name_taken()),
            Found::Nothing => State::default(),
            Found::Ours(state) => state,
        };
        let claim = match is_new {
            true => claimed(self.claim(&mut turn, server, owner, handout).await)?,
            false => None,
        };
        let is_claimed = claim.is_some();
        let handed = claim.unwrap_or_else(|| handout.handed(owner, &state));
        let shape = if is_claimed {
            meanwhile(&mut turn, seed_in(server, name, work)).await?;
            None
        } else {
            let roles = owner.roles(server, &state, handout, self.postgres.config.connection_limit);
            let list = owner.enlist(handed.made(), !state.thing);
            drop_database(&mut turn, draft).await?;
            let fresh = if state.thing {
                let roles = roles.await?;
                // A role that was made again has lost it.
                make(&mut turn, format!("{roles}{list}{}", let_connect(name, name))).await?;
                None
            } else {
                // The password is hashed while the server copies.
                let (copied, roles) = join!(copy(&mut turn, &template.name, draft), roles);
                let named = async {
                    let (roles, mark) = (copied.and(roles)?, mark(draft, name, &owner.claim));
                    let rename =
                        format!("{LATER}{roles}{list}{mark}ALTER DATABASE {draft} RENAME TO {name};");
                    make(&mut turn, rename).await
                };
                if let Err(failure) = named.await {
                    // If that fails too, it is dropped by the next attempt, or with the tenant.
                    let _ = drop_database(&mut turn, draft).await;
                    return Err(failure);
                }
                Some(&template.fresh)
            };
            let known = fresh.and_then(OnceLock::get);
            let shape = meanwhile(&mut turn, self.finish(server, owner, work, &state, known)).await?;
            if let (Some(fresh), Some(shape)) = (fresh, &shape) {
                fresh.get_or_init(|| shape.clone());
            }
            shape
        };
        run(&mut turn, owner.complete(work, shape.as_ref(), handed.is_known())).await?;
        Ok(handed)
    }

    /// Gives the tenant a database that is ready, and says what its password is. None: there is none.
    async fn claim(
        &self,
        connection: &mut PgConnection,
        server: &Server,
        owner: &Owner,
        handout: &Handout,
    ) -> Result<Option<Handed>, Failure> {
        if !self.spares.are_kept() {
            return Ok(None);
        }
        let (name, claim) = (&owner.name, literal(&owner.claim));
        let mut transaction = connection.begin().await.map_err(failure)?;
        let claimed = self.spares.claim(&mut transaction, server, owner, handout).await?;
        let Some((spare, handed)) = claimed else { return Ok(None) };
        let rename =
            format!("ALTER DATABASE {spare} RENAME TO {name}; COMMENT ON DATABASE {name} IS {claim};");
        make(&mut transaction, rename).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(Some(handed))
    }

    /// Brings a database up to date and gives it what it lacks; answers the shape of its tables, if it is to be recorded.
    /// `fresh`: what a copy of the template is made of, so that it need not be looked through.
    async fn finish(
        &self,
        server: &Server,
        owner: &Owner,
        work: &Ensure,
        state: &State,
        fresh: Option<&Shape>,
    ) -> Result<Option<Shape>, Failure> {
        let mut inside = server.connect_to(&owner.name).await.map_err(|failure| match &*failure.code {
            // It has just got this name: another server has taken over, which does not know of it.
            "no_database" if !state.thing => Failure::retryable("just_gone", failure.message),
            _ => failure,
        })?;
        let shape = match fresh {
            Some(fresh) => Some(fresh.clone()),
            None => {
                let target = Target::of_one(SCHEMA);
                let made = state.shape.as_ref().filter(|_| state.thing);
                bring_up(&mut inside, target, &self.postgres, server, ISOLATION, made).await?
            }
        };
        let mut transaction = inside.begin().await.map_err(failure)?;
        if state.completed.is_none() || !state.thing {
            seed(&mut transaction, SCHEMA, work).await?;
        }
        run(&mut transaction, format!("{LATER}{}", rights(SCHEMA, &owner.name, state.fence))).await?;
        transaction.commit().await.map_err(failure)?;
        close(inside).await?;
        Ok(shape)
    }

    async fn template(&self, server: &Server) -> Result<Arc<Template>, Failure> {
        let made = async {
            let name = template::ready(server, &self.postgres.content.migrations).await?;
            Ok(Arc::new(Template { name, fresh: OnceLock::new() }))
        };
        self.template.on(server, made).await
    }

    /// Looks again where a tenant's rows are, and in which tables, when it is next asked for them.
    pub fn forget(&self, tenant: TenantId) {
        self.open.invalidate(&tenant);
    }

    /// Removes database and roles, if they are the tenant's, and counts rows and logins.
    pub async fn remove(
        &self,
        server: &Server,
        owner: &Owner,
        tenant: TenantId,
        draft: &Name,
    ) -> Result<Removal, Failure> {
        if let Some(open) = self.open.remove(&tenant) {
            open.pool.close().await;
        }
        let name = &owner.name;
        let mut turn = server.turn(&owner.word()).await?;
        drop_database(&mut turn, draft).await?;
        let Found::Ours(state) = owner.look(&mut turn).await? else { return Ok(Removal::default()) };
        let logins = owner.shut_out(&mut turn, &state).await?;
        let mut rows = Value::Object(Map::new());
        if state.thing {
            rows = meanwhile(&mut turn, rows_in(server, name)).await?;
            drop_database(&mut turn, name).await?;
        }
        let mut transaction = turn.begin().await.map_err(failure)?;
        run(&mut transaction, owner.drop_roles(&state)).await?;
        owner.strike(&mut transaction).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(Removal { rows, logins })
    }

    async fn opened(&self, tenant: TenantId) -> Result<Opened, Failure> {
        if let Some(open) = self.open.get(&tenant) {
            return Ok(open);
        }
        let (server, role) = self.find(tenant).await?;
        let pool = server.pool_of(&role, CONNECTIONS);
        let catalogue = async {
            let mut transaction = begin(&pool, String::new()).await?;
            read_catalogue(&mut transaction, SCHEMA).await
        };
        let catalogue = Arc::new(catalogue.await.map_err(|failure| server.named(failure))?);
        let opened = Opened { server, role, pool, catalogue };
        self.open.insert(tenant, opened.clone());
        Ok(opened)
    }

    /// Where a tenant's database is. All servers are asked at once: one that is out holds nobody up whom another one has.
    async fn find(&self, tenant: TenantId) -> Result<(Arc<Server>, Name), Failure> {
        let main = self.postgres.main();
        if tenant == self.postgres.content.canary_row.tenant {
            return Ok((main.clone(), self.canary(main).await?));
        }
        let mut asked: FuturesUnordered<_> = self
            .postgres
            .servers()
            .map(|server| async move {
                let name = async { name_of(&mut *server.connection().await?, ISOLATION, tenant).await };
                (server, name.await)
            })
            .collect();
        let mut out = None;
        while let Some((server, answer)) = asked.next().await {
            match answer {
                Ok(Some(name)) => return Ok((server.clone(), name)),
                Ok(None) => {}
                Err(failure) => out = Some(server.named(failure)),
            }
        }
        Err(out.unwrap_or_else(no_such_tenant))
    }
}

/// Writes a tenant's first rows into its database.
async fn seed_in(server: &Server, name: &Name, work: &Ensure) -> Result<(), Failure> {
    if work.rows.is_empty() {
        return Ok(());
    }
    let mut inside = server.connect_to(name).await?;
    let mut transaction = inside.begin().await.map_err(failure)?;
    seed(&mut transaction, SCHEMA, work).await?;
    transaction.commit().await.map_err(failure)?;
    close(inside).await
}

/// How many rows a tenant's database holds, by table.
async fn rows_in(server: &Server, name: &Name) -> Result<Value, Failure> {
    let mut inside = server.connect_to(name).await?;
    let mut transaction = inside.begin().await.map_err(failure)?;
    take_time(&mut transaction).await?;
    let catalogue = read_catalogue(&mut transaction, SCHEMA).await.unwrap_or_default();
    let rows = count_all(&mut transaction, &catalogue, SCHEMA).await?;
    transaction.commit().await.map_err(failure)?;
    close(inside).await?;
    Ok(rows)
}

/// The name under which a resource's database is made.
pub fn draft(resource: ResourceId) -> Result<Name, Failure> {
    Name::new(&format!("tenantry_draft_{}", resource.suffix()))
}

/// Whether there is a database of this name.
pub async fn is_there(connection: &mut PgConnection, name: &Name) -> Result<bool, Failure> {
    let there = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)");
    there.bind(name.as_str()).fetch_one(connection).await.map_err(failure)
}

/// Drops a database with all who are connected to it; absent is success. The caller knows that it is ours.
pub async fn drop_database(connection: &mut PgConnection, name: &Name) -> Result<(), Failure> {
    match run(connection, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await {
        // Only a superuser may end autovacuum by force; without force the server asks it to leave, and waits.
        Err(failure) if failure.code == "not_allowed" => {
            run(connection, format!("DROP DATABASE IF EXISTS {name}")).await
        }
        dropped => dropped,
    }
}

/// Copies the template. Nobody can tell yet whose it is, so it has a name of its own for now.
pub async fn copy(connection: &mut PgConnection, template: &Name, database: &Name) -> Result<(), Failure> {
    run(connection, format!("CREATE DATABASE {database} TEMPLATE {template} STRATEGY WAL_LOG")).await
}

/// The statements that mark a copy and let only this role connect.
pub fn mark(database: &Name, role: &Name, mark: &str) -> String {
    format!(
        "COMMENT ON DATABASE {database} IS {}; REVOKE ALL ON DATABASE {database} FROM PUBLIC; {}",
        literal(mark),
        let_connect(database, role)
    )
}

fn let_connect(database: &Name, role: &Name) -> String {
    format!("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role};")
}

#[async_trait]
impl Home for Databases {
    async fn enter(
        &self,
        tenant: TenantId,
    ) -> Result<(Transaction<'static, Driver>, Arc<Catalogue>), Failure> {
        let Opened { server, role, pool, catalogue } = self.opened(tenant).await?;
        let become_it = format!("SET LOCAL ROLE {role}; SET LOCAL {}", search_path(SCHEMA));
        match begin(&pool, become_it).await {
            Ok(transaction) => Ok((transaction, catalogue)),
            // The role or the database has gone.
            Err(failure) if failure.class == FailureClass::Invalid || failure.code == "no_database" => {
                self.open.invalidate(&tenant);
                Err(no_such_tenant())
            }
            Err(failure) => Err(server.named(failure)),
        }
    }
}
