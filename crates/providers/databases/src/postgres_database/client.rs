//! Tenants' databases on their servers: creates one under a draft name and renames it in the transaction that
//! tags it, claims a warm one, removes one, and begins transactions as its tenant.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use moka::sync::Cache;
use serde_json::Value;
use tenantry_model::id::ResourceId;
use tenantry_model::{Failure, FailureClass, TenantId};
use tenantry_postgres::{Pool, Pooled, Session, Transaction};
use tokio::join;

use super::dropping::{allow_connections, drop_database, remove_database};
use super::warm_pool::WarmDatabases;
use super::{ISOLATION, template};
use crate::content::Ensure;
use crate::postgres::{
    Extensions, InstallIn, IssuedPassword, LocateRows, Name, Owner, PasswordRequest, PerServer, Postgres,
    RemovalCounts, Server, Target, TenantState, WarmPool, begin, create_objects, drop_unblocked, failure,
    install_extensions, keeps_replaced, name_of, name_taken, no_such_tenant, or_on_demand, read_catalogue,
    rights, run, seed, update_schema, with_keepalive,
};
use crate::shape::Shape;
use crate::tables::{Catalogue, literal};
use tenantry_provider::verbs::Ownership;

/// Main schema of a tenant's database; files may create others beside it.
pub const SCHEMA: &str = "public";
/// Maximum number of connections to one tenant's database.
const CONNECTIONS: u32 = 2;
/// Does not wait for this commit to reach the disk: the last commit of a creation waits, and the log is
/// written in order.
const LATER: &str = "SET LOCAL synchronous_commit = off;";
/// Time for which a tenant's database and tables are cached.
const BELIEVED: Duration = Duration::from_secs(60);

/// Pool of connections to a tenant's database, with what is needed to use it.
#[derive(Clone)]
pub struct OpenTenantDatabase {
    server: Arc<Server>,
    role: Name,
    pool: Pool,
    catalogue: Arc<Catalogue>,
}

/// The template database on one server.
struct Template {
    name: Name,
    /// Definition of a copy of it. Per server, because releases write definitions differently.
    fresh: OnceLock<Shape>,
}

/// The databases of all tenants.
pub struct Databases {
    pub postgres: Arc<Postgres>,
    template: PerServer<Arc<Template>>,
    canary: PerServer<Name>,
    open: Cache<TenantId, OpenTenantDatabase>,
    pub warm_pool: WarmPool,
    /// Those of every tenant's database.
    pub extensions: Extensions,
}

impl Databases {
    /// Does not connect.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        let open = Cache::builder().max_capacity(postgres.config.open_databases).time_to_live(BELIEVED);
        let size = postgres.config.warm_databases;
        let warm_pool = WarmPool::new(postgres.clone(), ISOLATION, size, WarmDatabases(postgres.clone()));
        let extensions = Extensions::of_tenant(&postgres.content.migrations);
        Self {
            postgres,
            template: PerServer::default(),
            canary: PerServer::default(),
            open: open.build(),
            warm_pool,
            extensions,
        }
    }

    /// The statements that let a tenant's logins find the extensions of its database.
    fn paths(&self, owner: &Owner, state: &TenantState, database: &Name) -> String {
        match self.extensions.is_empty() {
            true => String::new(),
            false => owner.search_paths(state, database.as_str(), &self.extensions.search_path(SCHEMA)),
        }
    }

    /// The database of the canary row on a server, set up once per process.
    pub async fn canary(&self, server: &Server) -> Result<Name, Failure> {
        let made = async {
            server.require(ISOLATION, &self.postgres.config.app_role, 0).await?;
            let (owner, work) = self.postgres.canary(server, ISOLATION)?;
            let draft = Name::new(&owner.name.as_str().replace("canary", "draft"))?;
            if self.is_replaced(server, &owner).await? {
                self.remove(server, &owner, self.postgres.content.canary_row.tenant, &draft).await?;
            }
            self.make(server, &owner, &work, &PasswordRequest::no_login(), &draft).await?;
            // The canary row may have changed since the database was created.
            self.seed_in(server, &owner.name, &work).await?;
            Ok(owner.name)
        };
        self.canary.get_or_init(server, made).await
    }

    /// Whether this database exists and has an earlier text of a file that replaces it.
    async fn is_replaced(&self, server: &Server, owner: &Owner) -> Result<bool, Failure> {
        let migrations = &self.postgres.content.migrations;
        if migrations.iter().all(|migration| migration.replaces.is_empty())
            || !is_there(&mut *server.connection().await?, &owner.name).await?
        {
            return Ok(false);
        }
        let mut inside = server.connect_to(&owner.name).await?;
        let is_replaced = keeps_replaced(&mut inside, SCHEMA, migrations).await?;
        inside.close().await;
        Ok(is_replaced)
    }

    /// Creates the tenant's database and role, or completes them.
    pub async fn ensure(
        &self,
        server: &Server,
        owner: &Owner,
        work: &Ensure,
        request: &PasswordRequest,
        draft: &Name,
    ) -> Result<IssuedPassword, Failure> {
        self.postgres.admit(server, ISOLATION).await?;
        server.alive().await.map_err(Failure::untouched)?;
        self.canary(server).await.map_err(Failure::untouched)?;
        let made = self.make(server, owner, work, request, draft).await;
        // Only now, so that filling the warm pool does not delay this tenant.
        self.warm_pool.request_fill();
        made
    }

    async fn make(
        &self,
        server: &Server,
        owner: &Owner,
        work: &Ensure,
        request: &PasswordRequest,
        draft: &Name,
    ) -> Result<IssuedPassword, Failure> {
        let name = &owner.name;
        let template = self.template(server).await?;
        let mut lock = server.lock(&owner.lock_name()).await?;
        let found = owner.inspect(&mut lock).await?;
        let is_new = found == Ownership::Absent;
        let state = match found {
            Ownership::Foreign => return Err(name_taken()),
            Ownership::Absent => TenantState::default(),
            Ownership::Own(state) => state,
        };
        let claim = match is_new {
            true => or_on_demand(self.claim(&mut lock, server, owner, request).await)?,
            false => None,
        };
        let is_claimed = claim.is_some();
        let issued = claim.unwrap_or_else(|| request.issue(owner, &state));
        let shape = if is_claimed {
            with_keepalive(&mut lock, self.seed_in(server, name, work)).await?;
            None
        } else {
            let roles = owner.roles(server, &state, request, self.postgres.config.connection_limit);
            let list = owner.enlist(issued.new_password(), !state.thing);
            drop_database(server, &mut lock, draft).await?;
            let fresh = if state.thing {
                let roles = roles.await?;
                // A role that was created again has lost this grant.
                let (connect, paths) = (let_connect(name, name), self.paths(owner, &state, name));
                create_objects(
                    &mut lock,
                    format!("{roles}{list}{};{connect}{paths}", allow_connections(name)),
                )
                .await?;
                None
            } else {
                // Hashes the password while the server copies.
                let (copied, roles) = join!(copy(&mut lock, &template.name, draft), roles);
                let named = async {
                    let (roles, tag) = (copied.and(roles)?, tag(draft, name, &owner.tag));
                    let paths = self.paths(owner, &state, draft);
                    let rename =
                        format!("{LATER}{roles}{list}{tag}{paths}ALTER DATABASE {draft} RENAME TO {name};");
                    create_objects(&mut lock, rename).await
                };
                if let Err(failure) = named.await {
                    // If this fails too, the next attempt or the removal drops it.
                    let _ = drop_database(server, &mut lock, draft).await;
                    return Err(failure);
                }
                Some(&template.fresh)
            };
            let known = fresh.and_then(OnceLock::get);
            let shape = with_keepalive(&mut lock, self.finish(server, owner, work, &state, known)).await?;
            if let (Some(fresh), Some(shape)) = (fresh, &shape) {
                fresh.get_or_init(|| shape.clone());
            }
            shape
        };
        run(&mut lock, owner.complete(work, shape.as_ref(), issued.is_stored())).await?;
        Ok(issued)
    }

    /// Claims a warm database for the tenant and returns its password. None: the pool is empty.
    async fn claim(
        &self,
        connection: &mut Session,
        server: &Server,
        owner: &Owner,
        request: &PasswordRequest,
    ) -> Result<Option<IssuedPassword>, Failure> {
        if !self.warm_pool.is_enabled() {
            return Ok(None);
        }
        let (name, tag) = (&owner.name, literal(&owner.tag));
        let mut transaction = connection.begin().await.map_err(failure)?;
        let claimed = self.warm_pool.claim(&mut transaction, server, owner, request).await?;
        let Some((warm, issued)) = claimed else { return Ok(None) };
        let paths = self.paths(owner, &TenantState::default(), name);
        let rename =
            format!("ALTER DATABASE {warm} RENAME TO {name}; COMMENT ON DATABASE {name} IS {tag}; {paths}");
        create_objects(&mut transaction, rename).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(Some(issued))
    }

    /// Migrates a database, seeds it and grants privileges; returns the definition to record, if any. `fresh`
    /// is the definition of a copy of the template, which then need not be read.
    async fn finish(
        &self,
        server: &Server,
        owner: &Owner,
        work: &Ensure,
        state: &TenantState,
        fresh: Option<&Shape>,
    ) -> Result<Option<Shape>, Failure> {
        let mut inside = server.connect_to(&owner.name).await.map_err(|failure| match &*failure.code {
            // The database was just renamed: a promoted server does not have it.
            "no_database" if !state.thing => Failure::retryable("just_gone", failure.message).wrong_answer(),
            _ => failure,
        })?;
        let shape = match fresh {
            Some(fresh) => Some(fresh.clone()),
            None => {
                let migrations = &self.postgres.content.migrations;
                let extensions = install_extensions(&mut inside, migrations, InstallIn::OfTenant).await?;
                let target = Target::of_one(SCHEMA, ISOLATION, &extensions);
                let made = state.shape.as_ref().filter(|_| state.thing);
                update_schema(&mut inside, target, &self.postgres, server, ISOLATION, made).await?
            }
        };
        let mut transaction = inside.begin().await.map_err(failure)?;
        if state.completed.is_none() || !state.thing {
            seed(&mut transaction, SCHEMA, &self.extensions.search_path(SCHEMA), work).await?;
        }
        run(&mut transaction, format!("{LATER}{}", rights(SCHEMA, &owner.name, state.fence))).await?;
        transaction.commit().await.map_err(failure)?;
        inside.close().await;
        Ok(shape)
    }

    /// Writes a tenant's first rows into its database.
    async fn seed_in(&self, server: &Server, name: &Name, work: &Ensure) -> Result<(), Failure> {
        if work.rows.is_empty() {
            return Ok(());
        }
        let mut inside = server.connect_to(name).await?;
        let mut transaction = inside.begin().await.map_err(failure)?;
        seed(&mut transaction, SCHEMA, &self.extensions.search_path(SCHEMA), work).await?;
        transaction.commit().await.map_err(failure)?;
        inside.close().await;
        Ok(())
    }

    async fn template(&self, server: &Server) -> Result<Arc<Template>, Failure> {
        let made = async {
            let name = template::ready(server, &self.postgres).await?;
            Ok(Arc::new(Template { name, fresh: OnceLock::new() }))
        };
        self.template.get_or_init(server, made).await
    }

    /// Drops the tenant's cache entry.
    pub fn forget(&self, tenant: TenantId) {
        self.open.invalidate(&tenant);
    }

    /// Removes database and roles if they carry the owner tag; counts rows and logins.
    pub async fn remove(
        &self,
        server: &Server,
        owner: &Owner,
        tenant: TenantId,
        draft: &Name,
    ) -> Result<RemovalCounts, Failure> {
        if let Some(open) = self.open.remove(&tenant) {
            open.pool.close().await;
        }
        if !server.is_set_up().await? {
            return Ok(RemovalCounts::default());
        }
        let name = &owner.name;
        let mut lock = server.lock(&owner.lock_name()).await?;
        drop_database(server, &mut lock, draft).await?;
        let Ownership::Own(state) = owner.inspect(&mut lock).await? else {
            return Ok(RemovalCounts::default());
        };
        let logins = owner.shut_out(server, &mut lock, &state).await?;
        let mut removed = RemovalCounts { logins, ..Default::default() };
        if state.thing {
            let (rows, slots_left) = remove_database(server, &mut lock, name).await?;
            removed = RemovalCounts { rows: Value::Object(rows), slots_left, ..removed };
        }
        let mut transaction = lock.begin().await.map_err(failure)?;
        drop_unblocked(server, &mut transaction, owner.drop_roles(&state)).await?;
        owner.unlist(&mut transaction).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(removed)
    }

    async fn opened(&self, tenant: TenantId) -> Result<OpenTenantDatabase, Failure> {
        if let Some(open) = self.open.get(&tenant) {
            return Ok(open);
        }
        let (server, role) = self.find(tenant).await?;
        let pool = server.pool_of(&role, CONNECTIONS);
        let catalogue = async {
            let mut transaction = begin(&pool, String::new()).await?;
            read_catalogue(&mut transaction, SCHEMA, ISOLATION).await
        };
        let catalogue = Arc::new(catalogue.await.map_err(|failure| server.named(failure))?);
        let opened = OpenTenantDatabase { server, role, pool, catalogue };
        self.open.insert(tenant, opened.clone());
        Ok(opened)
    }

    /// Finds a tenant's database. Asks all servers at once, so that one that is down delays no tenant of
    /// another.
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

/// Name under which a resource's database is created.
pub fn draft(resource: ResourceId) -> Result<Name, Failure> {
    Name::new(&format!("tenantry_draft_{}", resource.suffix()))
}

/// Whether a database of this name exists.
pub async fn is_there(connection: &mut Session, name: &Name) -> Result<bool, Failure> {
    let there = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    connection.one(there, &[&name.as_str()]).await.map_err(failure)
}

/// Whether a removal has closed this database to all sessions.
pub async fn is_closed(connection: &mut Session, name: &Name) -> Result<bool, Failure> {
    let closed = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND NOT datallowconn)";
    connection.one(closed, &[&name.as_str()]).await.map_err(failure)
}

/// Copies the template under a temporary name: the copy has no owner tag yet.
pub async fn copy(connection: &mut Session, template: &Name, database: &Name) -> Result<(), Failure> {
    run(connection, format!("CREATE DATABASE {database} TEMPLATE {template} STRATEGY WAL_LOG")).await
}

/// The statements that tag a copy and let only this role connect.
pub fn tag(database: &Name, role: &Name, owner_tag: &str) -> String {
    format!(
        "COMMENT ON DATABASE {database} IS {}; REVOKE ALL ON DATABASE {database} FROM PUBLIC; {}",
        literal(owner_tag),
        let_connect(database, role)
    )
}

fn let_connect(database: &Name, role: &Name) -> String {
    format!("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role};")
}

#[async_trait]
impl LocateRows for Databases {
    async fn enter(&self, tenant: TenantId) -> Result<(Transaction<Pooled>, Arc<Catalogue>), Failure> {
        let OpenTenantDatabase { server, role, pool, catalogue } = self.opened(tenant).await?;
        let become_it = format!("SET LOCAL ROLE {role}; SET LOCAL {}", self.extensions.search_path(SCHEMA));
        match begin(&pool, become_it).await {
            Ok(transaction) => Ok((transaction, catalogue)),
            // The role or the database is gone.
            Err(failure) if failure.class == FailureClass::Invalid || failure.code == "no_database" => {
                self.open.invalidate(&tenant);
                Err(no_such_tenant())
            }
            Err(failure) => Err(server.named(failure)),
        }
    }
}
