//! Tenants' schemas on the main server: creates one as a whole, claims a warm one, removes one, and begins
//! transactions as its tenant.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use serde_json::Value;
use tenantry_model::{Failure, FailureClass, TenantId};
use tenantry_postgres::{Pooled, Session, Transaction};
use tokio::sync::OnceCell;

use super::ISOLATION;
use super::warm_pool::WarmSchemas;
use crate::content::Ensure;
use crate::postgres::{
    Extensions, IssuedPassword, LocateRows, Name, Owner, PasswordRequest, PerServer, Postgres, RemovalCounts,
    Target, TenantState, Trial, WarmPool, baseline, count_all, create_objects, drop_tables_in_batches,
    drop_unblocked, failure, keeps_replaced, lift_timeout, name_of, name_taken, no_such_tenant, or_on_demand,
    read_catalogue, require_no_dependents, rights, run, seed, update_schema,
};
use crate::shape::Shape;
use crate::tables::{Catalogue, literal};
use tenantry_provider::verbs::Ownership;

/// Time for which a tenant's location is cached.
const BELIEVED: Duration = Duration::from_secs(60);
/// Maximum number of cached tenants.
const KNOWN: u64 = 1_000;

/// How a tenant's rows are reached.
#[derive(Clone)]
struct TenantLocation {
    /// Statements that begin a transaction of its role in its schema.
    become_it: String,
    catalogue: Arc<Catalogue>,
}

/// The schemas of all tenants.
pub struct Schemas {
    pub postgres: Arc<Postgres>,
    /// Definition of a newly created schema; all are alike.
    fresh: OnceCell<Shape>,
    canary: PerServer<Name>,
    locations: Cache<TenantId, TenantLocation>,
    pub warm_pool: WarmPool,
}

impl Schemas {
    /// Does not connect.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        let locations = Cache::builder().max_capacity(KNOWN).time_to_live(BELIEVED).build();
        let size = postgres.config.warm_schemas;
        let warm_pool = WarmPool::new(postgres.clone(), ISOLATION, size, WarmSchemas(postgres.clone()));
        Self { postgres, fresh: OnceCell::new(), canary: PerServer::default(), locations, warm_pool }
    }

    /// The schema of the canary row, set up once per process.
    pub async fn canary(&self) -> Result<Name, Failure> {
        let made = async {
            self.postgres.main().require(ISOLATION, &self.postgres.config.app_role, 0).await?;
            let (owner, work) = self.postgres.canary(self.postgres.main(), ISOLATION)?;
            let (migrations, extensions) =
                (&self.postgres.content.migrations, self.postgres.extensions().await?);
            let mut lock = self.postgres.main().lock(&owner.lock_name()).await?;
            if keeps_replaced(&mut lock, owner.name.as_str(), migrations).await? {
                drop(lock);
                // Made anew, so that the text which replaces the earlier one is tried.
                self.remove(&owner, self.postgres.content.canary_row.tenant).await?;
                lock = self.postgres.main().lock(&owner.lock_name()).await?;
            }
            Trial::new(ISOLATION, &self.postgres.set(), &extensions, None)
                .with_pg_notify(self.postgres.config.pg_notify)
                .run(&mut lock, owner.name.as_str(), migrations)
                .await?;
            drop(lock);
            self.make(&owner, &work, &PasswordRequest::no_login()).await?;
            // The canary row may have changed since the schema was created.
            let mut transaction = self.postgres.main().begin(String::new()).await?;
            let name = owner.name.as_str();
            seed(&mut transaction, name, &extensions.search_path(name), &work).await?;
            transaction.commit().await.map_err(failure)?;
            Ok(owner.name)
        };
        self.canary.get_or_init(self.postgres.main(), made).await
    }

    /// Creates the tenant's schema and role, or completes them.
    pub async fn ensure(
        &self,
        owner: &Owner,
        work: &Ensure,
        request: &PasswordRequest,
    ) -> Result<IssuedPassword, Failure> {
        self.postgres.admit(self.postgres.main(), ISOLATION).await?;
        self.postgres.main().alive().await.map_err(Failure::untouched)?;
        self.canary().await.map_err(Failure::untouched)?;
        let made = self.make(owner, work, request).await;
        // Only now, so that filling the warm pool does not delay this tenant.
        self.warm_pool.request_fill();
        made
    }

    async fn make(
        &self,
        owner: &Owner,
        work: &Ensure,
        request: &PasswordRequest,
    ) -> Result<IssuedPassword, Failure> {
        let name = owner.name.as_str();
        let extensions = self.postgres.extensions().await?;
        let mut lock = self.postgres.main().lock(&owner.lock_name()).await?;
        let found = owner.inspect(&mut lock).await?;
        let is_new = found == Ownership::Absent;
        let state = match found {
            Ownership::Foreign => return Err(name_taken()),
            Ownership::Absent => TenantState::default(),
            Ownership::Own(state) => state,
        };
        if is_new
            && let Some(issued) =
                or_on_demand(self.claim(&mut lock, owner, &extensions, work, request).await)?
        {
            return Ok(issued);
        }
        let issued = request.issue(owner, &state);
        let begin = self.begin(owner, &extensions, request, &state, &issued).await?;
        let migrations = &self.postgres.content.migrations;
        let whole = if state.thing { None } else { baseline(name, &extensions, migrations) };
        if let Some(tables) = whole {
            let all = format!("{begin}{tables}");
            match self.at_once(&mut lock, (owner, &extensions), work, request, &state, all).await {
                // File by file, the failure names the file at fault.
                Err(failure) if matches!(failure.class, FailureClass::Fatal | FailureClass::Invalid) => {
                    tracing::warn!(%failure, "a schema could not be created in one transaction; it is created file by file");
                }
                made => return made.map(|()| issued),
            }
        }
        create_objects(&mut lock, begin).await?;
        let target = Target::of_one(name, ISOLATION, &extensions);
        let made = state.shape.as_ref().filter(|_| state.thing);
        let shape =
            update_schema(&mut lock, target, &self.postgres, self.postgres.main(), ISOLATION, made).await?;
        let mut transaction = lock.begin().await.map_err(failure)?;
        if state.completed.is_none() || !state.thing {
            seed(&mut transaction, name, &extensions.search_path(name), work).await?;
        }
        run(&mut transaction, end(owner, work, request, &state, shape.as_ref())).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(issued)
    }

    /// Claims a warm schema for the tenant and returns its password. None: the pool is empty.
    async fn claim(
        &self,
        connection: &mut Session,
        owner: &Owner,
        extensions: &Extensions,
        work: &Ensure,
        request: &PasswordRequest,
    ) -> Result<Option<IssuedPassword>, Failure> {
        if !self.warm_pool.is_enabled() {
            return Ok(None);
        }
        let (server, name) = (self.postgres.main(), &owner.name);
        let mut transaction = connection.begin().await.map_err(failure)?;
        let claimed = self.warm_pool.claim(&mut transaction, server, owner, request).await?;
        let Some((warm, issued)) = claimed else { return Ok(None) };
        let path = extensions.search_path(name.as_str());
        let finds = owner.search_paths(&TenantState::default(), server.database(), &path);
        let tag = literal(&owner.tag);
        let rename =
            format!("{finds}ALTER SCHEMA {warm} RENAME TO {name}; COMMENT ON SCHEMA {name} IS {tag};");
        create_objects(&mut transaction, rename).await?;
        seed(&mut transaction, name.as_str(), &path, work).await?;
        run(&mut transaction, owner.complete(work, None, false)).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(Some(issued))
    }

    /// Creates everything in one transaction, and in one round trip if there are no rows to write and the
    /// definition is known.
    async fn at_once(
        &self,
        connection: &mut Session,
        (owner, extensions): (&Owner, &Extensions),
        work: &Ensure,
        request: &PasswordRequest,
        state: &TenantState,
        begin: String,
    ) -> Result<(), Failure> {
        if let (Some(shape), true) = (self.fresh.get(), work.rows.is_empty()) {
            let end = end(owner, work, request, state, Some(shape));
            // Without BEGIN and COMMIT, one message is one transaction.
            return run(connection, format!("{begin}{end}")).await;
        }
        let mut transaction = connection.begin().await.map_err(failure)?;
        run(&mut transaction, begin).await?;
        let name = owner.name.as_str();
        let shape = self.fresh.get_or_try_init(|| async {
            read_catalogue(&mut transaction, name, ISOLATION).await.map(|catalogue| catalogue.shape)
        });
        let shape = shape.await?;
        seed(&mut transaction, name, &extensions.search_path(name), work).await?;
        run(&mut transaction, end(owner, work, request, state, Some(shape))).await?;
        transaction.commit().await.map_err(failure)
    }

    /// The statements that create role and schema with their owner tags, and the tenant's row in the list.
    async fn begin(
        &self,
        owner: &Owner,
        extensions: &Extensions,
        request: &PasswordRequest,
        state: &TenantState,
        issued: &IssuedPassword,
    ) -> Result<String, Failure> {
        let (server, name) = (self.postgres.main(), &owner.name);
        let mut sql = owner.roles(server, state, request, self.postgres.config.connection_limit).await?;
        sql.push_str(&owner.search_paths(state, server.database(), &extensions.search_path(name.as_str())));
        if !state.thing {
            let tag = literal(&owner.tag);
            sql.push_str(&format!("CREATE SCHEMA {name}; COMMENT ON SCHEMA {name} IS {tag};"));
        }
        sql.push_str(&owner.enlist(issued.new_password(), !state.thing));
        Ok(sql)
    }

    /// Drops the tenant's cache entry.
    pub fn forget(&self, tenant: TenantId) {
        self.locations.invalidate(&tenant);
    }

    /// Removes schema and roles if they carry the owner tag; counts rows and logins.
    pub async fn remove(&self, owner: &Owner, tenant: TenantId) -> Result<RemovalCounts, Failure> {
        self.forget(tenant);
        if !self.postgres.main().is_set_up().await? {
            return Ok(RemovalCounts::default());
        }
        let name = &owner.name;
        let mut lock = self.postgres.main().lock(&owner.lock_name()).await?;
        let Ownership::Own(state) = owner.inspect(&mut lock).await? else {
            return Ok(RemovalCounts::default());
        };
        require_no_dependents(&mut lock, name.as_str()).await?;
        let logins = owner.shut_out(self.postgres.main(), &mut lock, &state).await?;
        let rows = Value::Object(count_all(&mut lock, name.as_str()).await?);
        drop_tables_in_batches(self.postgres.main(), &mut lock, name.as_str()).await?;
        let mut transaction = lock.begin().await.map_err(failure)?;
        lift_timeout(&mut transaction).await?;
        let mut sql = String::new();
        if state.thing {
            sql.push_str(&format!("DROP SCHEMA {name} CASCADE;"));
        }
        sql.push_str(&owner.drop_roles(&state));
        drop_unblocked(self.postgres.main(), &mut transaction, sql).await?;
        owner.unlist(&mut transaction).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(RemovalCounts { rows, logins, ..Default::default() })
    }

    async fn location(&self, tenant: TenantId) -> Result<TenantLocation, Failure> {
        if let Some(location) = self.locations.get(&tenant) {
            return Ok(location);
        }
        let canary = tenant == self.postgres.content.canary_row.tenant;
        let canary = if canary { Some(self.canary().await?) } else { None };
        let mut connection = self.postgres.main().connection().await?;
        let name = match canary {
            Some(name) => name,
            None => name_of(&mut connection, ISOLATION, tenant).await?.ok_or_else(no_such_tenant)?,
        };
        let catalogue = Arc::new(read_catalogue(&mut connection, name.as_str(), ISOLATION).await?);
        let path = self.postgres.main_path(&mut connection, name.as_str()).await?;
        let location =
            TenantLocation { become_it: format!("SET LOCAL ROLE {name}; SET LOCAL {path}"), catalogue };
        self.locations.insert(tenant, location.clone());
        Ok(location)
    }
}

/// The statements that grant privileges and record completion, with the definition if it has changed.
fn end(
    owner: &Owner,
    work: &Ensure,
    request: &PasswordRequest,
    state: &TenantState,
    shape: Option<&Shape>,
) -> String {
    let complete = owner.complete(work, shape, request.issue(owner, state).is_stored());
    format!("{}{complete}", rights(owner.name.as_str(), &owner.name, state.fence))
}

#[async_trait]
impl LocateRows for Schemas {
    async fn enter(&self, tenant: TenantId) -> Result<(Transaction<Pooled>, Arc<Catalogue>), Failure> {
        let TenantLocation { become_it, catalogue } = self.location(tenant).await?;
        match self.postgres.main().begin(become_it).await {
            Ok(transaction) => Ok((transaction, catalogue)),
            Err(failure) if failure.class == FailureClass::Invalid => {
                self.locations.invalidate(&tenant);
                Err(no_such_tenant())
            }
            Err(failure) => Err(failure),
        }
    }
}
